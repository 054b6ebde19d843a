// An index with a history, to be salvaged.
#pragma once

#include <map>

#include "../../index/src/file_table.h"
#include "index/salvage.h"
#include "index_fixture.h"

namespace ourfs::test {

using Keys = std::map<std::string, std::string>;

class SalvageTest : public IndexTest {
 protected:
  // Keys that are put, put again and deleted, in many flushes, with compactions between them.
  void fill(Volume& volume, Random& random, uint64_t batches) {
    ASSERT_OK(volume.format());
    const auto index = volume.open();
    ASSERT_NE(index, nullptr);
    ASSERT_OK(index->startBackground());
    for (uint64_t i = 1; i <= batches; ++i) {
      IndexBatch batch;
      for (int k = 0; k < 40; ++k) {
        const std::string key = numberKey(random.below(20000));
        if (random.below(4) == 0)
          batch.erase(key);
        else
          batch.put(key, std::string(random.below(60), static_cast<char>('a' + random.below(26))));
      }
      ASSERT_OK(commit(*index, batch, i * 8));
      if (i % 100 == 0) ASSERT_OK(index->flush());
    }
    ASSERT_OK(index->close());
    ASSERT_OK(volume.device->flush());
  }
  static Keys keysOf(Volume& volume) {
    Keys keys;
    IndexOptions options = volume.options();
    options.readOnly = true;
    const auto index = Volume::openOn(*volume.device, std::move(options));
    if (index == nullptr) return keys;
    const Status scanned = index->scan("", "", [&](auto key, auto value) {
      keys.emplace(key, value);
      return true;
    });
    EXPECT_TRUE(scanned.isOk());
    return keys;
  }
  std::unique_ptr<IndexSalvage> salvage(Volume& volume) {
    notes_.clear();
    auto read = IndexSalvage::read(
        *volume.device, volume.geometry, [&](const std::string& line) { notes_.push_back(line); },
        [](ByteCount done, ByteCount total) { EXPECT_LE(done, total); });
    EXPECT_TRUE(read.isOk()) << read.status().message();
    return read.isOk() ? std::move(*read) : nullptr;
  }
  static Keys keysOf(const IndexSalvage& salvaged) {
    Keys keys;
    salvaged.scan("", [&](auto key, auto value) {
      keys.emplace(key, value);
      return true;
    });
    return keys;
  }
  static std::vector<TableFile> filesOf(Volume& volume) {
    auto table = FileTable::load(*volume.device, volume.geometry, true);
    EXPECT_TRUE(table.isOk()) << table.status().message();
    return table.isOk() ? (*table)->files() : std::vector<TableFile>();
  }
  static void change(Volume& volume, const std::function<Status(FileTable&)>& how) {
    auto table = FileTable::load(*volume.device, volume.geometry, false);
    ASSERT_TRUE(table.isOk()) << table.status().message();
    ASSERT_OK(how(**table));
    ASSERT_OK((*table)->sync());
  }
  static void spoil(Volume& volume, uint64_t at) {
    std::vector<std::byte> sector(512, std::byte{0x5a});
    ASSERT_OK(volume.device->write(DeviceOffset(at), sector));
  }

  std::vector<std::string> notes_;
};

}  // namespace ourfs::test
