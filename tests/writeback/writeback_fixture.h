// A volume, writeback over it, and one file.
#pragma once

#include <gmock/gmock.h>

#include <memory>
#include <string>

#include "test_volume.h"

namespace ourfs::test {

class WritebackFixture : public ::testing::Test {
 protected:
  // Unless a test says so, nothing is written by itself.
  static WritebackOptions quiet() {
    WritebackOptions w;
    w.expire = std::chrono::hours(1);
    w.backgroundDirty = ByteCount(GiB);
    return w;
  }
  void start(const VolumeOptions& o = {}, const WritebackOptions& w = quiet()) {
    file.reset();
    writeback.reset();
    volume = std::make_unique<TestVolume>(o);
    writeback = Writeback::start(volume->device, volume->pool, *volume, w);
    file = volume->newFile();
  }
  void write(uint64_t pos, const std::string& data) { writeTo(file, pos, data); }
  void writeTo(const std::shared_ptr<Mapping>& to, uint64_t pos, const std::string& data) {
    ASSERT_TRUE(volume->store(*to, pos, data).isOk());
    writeback->dirtied(to);
  }
  Status flush() { return writeback->flush(file, FileOffset(0), kFileEnd); }
  void expectSound() {
    EXPECT_THAT(volume->violations(), ::testing::IsEmpty());
    EXPECT_EQ(volume->dirtyWithoutSpace(*file), "");
    EXPECT_EQ(volume->reservationsHeld(), 0);
  }

  std::unique_ptr<TestVolume> volume;
  std::unique_ptr<Writeback> writeback;
  std::shared_ptr<Mapping> file;
};

}  // namespace ourfs::test
