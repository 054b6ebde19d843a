// Makes the golden images of tests/golden: see README.md there before you run it.
#include <spdlog/spdlog.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "images/golden_file.h"
#include "images/sample.h"
#include "images/sparse_image.h"
#include "images/tree_text.h"

namespace {

using namespace ourfs;
using namespace ourfs::images;

struct Kind {
  const char* name;
  uint32_t blockSize;
  bool clean;
};

Result<std::string> manifestOf(BlockDevice& device) {
  OpenOptions open;
  open.readOnly = true;
  TRY_ASSIGN(const auto volume, Volume::open(device, open));
  TRY_ASSIGN(const auto filesystem, Filesystem::start(*volume, quietOptions()));
  const TreeText tree = readTree(*filesystem);
  if (!tree.errors.empty()) return Status::error(EIO, tree.errors.front());
  return tree.text;
}

Status make(const std::string& directory, const Kind& kind) {
  const std::string path = directory + "/" + kind.name;
  if (std::ifstream(path + ".img.gz").good()) {
    return Status::error(EEXIST, path + ".img.gz is there: a golden image is never made anew");
  }
  SampleOptions options;
  options.blockSize = kind.blockSize;
  options.clean = kind.clean;
  TRY_ASSIGN(const Sample sample, makeSample(options));
  TRY_ASSIGN(const std::string manifest, manifestOf(*sample.device));
  if (!writePacked(path + ".img.gz", sparseImage(*sample.device)) ||
      !writePacked(path + ".manifest.gz", manifest)) {
    return Status::error(EIO, path + " cannot be written");
  }
  return Status::ok();
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: ourfs-make-golden DIRECTORY\n");
    return 2;
  }
  spdlog::set_level(spdlog::level::warn);
  for (const Kind& kind : {Kind{"clean-4k", 4096, true}, Kind{"replay-4k", 4096, false},
                           Kind{"clean-1k", 1024, true}, Kind{"replay-64k", 65536, false}}) {
    if (const Status made = make(arguments[1], kind); !made.isOk()) {
      std::fprintf(stderr, "ourfs-make-golden: %s\n", made.message().c_str());
      return 1;
    }
  }
  return 0;
}
