#include "images/golden_file.h"

#include <cstdio>

namespace ourfs::images {

std::optional<std::string> readPacked(const std::string& path) {
  FILE* pipe = popen(("gzip -dc -- '" + path + "'").c_str(), "r");
  if (pipe == nullptr) return {};
  std::string bytes;
  char piece[65536];
  for (size_t n; (n = fread(piece, 1, sizeof piece, pipe)) > 0;) bytes.append(piece, n);
  if (pclose(pipe) != 0) return {};
  return bytes;
}

bool writePacked(const std::string& path, const std::string& bytes) {
  FILE* pipe = popen(("gzip -9n > '" + path + "'").c_str(), "w");
  if (pipe == nullptr) return false;
  const bool whole = fwrite(bytes.data(), 1, bytes.size(), pipe) == bytes.size();
  return pclose(pipe) == 0 && whole;
}

}  // namespace ourfs::images
