#include "packed_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "error.h"
#include "files.h"

namespace tester {

namespace {

const char kPackAgain[] =
    "Pack the images again. If the sidecar FILE.json describes another file, remove the sidecar.";

// Returns the value of a key of a flat JSON object: one integer, or an array of integers.
std::vector<int64_t> Integers(const std::string& json, const std::string& key) {
  const std::string quoted = '"' + key + '"';
  const size_t found = json.find(quoted);
  if (found == std::string::npos) return {};
  const char* at = json.c_str() + found + quoted.size();
  at += std::strspn(at, " \t\r\n:");
  const bool is_array = *at == '[';
  if (is_array) ++at;
  std::vector<int64_t> values;
  for (;;) {
    char* end = nullptr;
    const int64_t value = std::strtoll(at, &end, 10);
    if (end == at) return values;
    values.push_back(value);
    if (!is_array) return values;
    at = end + std::strspn(end, " \t\r\n,");
  }
}

struct Sidecar {
  std::vector<int64_t> shape;
  int64_t bytes;
};

std::optional<Sidecar> ReadSidecar(const std::string& path) {
  const auto json = ReadFile(path + ".json");
  if (!json) return {};
  const auto shape = Integers(*json, "shape");
  const auto bytes = Integers(*json, "bytes");
  if (shape.size() != 3 || bytes.size() != 1) {
    throw DataError(path + ".json: expected the keys shape (a list) and bytes (a number)",
                    kPackAgain);
  }
  return Sidecar{shape, bytes[0]};
}

void CheckSidecar(const std::string& path, const Shape& shape, size_t bytes) {
  const auto sidecar = ReadSidecar(path);
  if (!sidecar) return;
  if (sidecar->shape != std::vector<int64_t>(shape.begin(), shape.end())) {
    throw DataError(
        path + ": expected images of " + Joined(shape) + ", found " + Joined(sidecar->shape) +
            " in " + SidecarName(path),
        "Pack the images for this model, or use the model that they were packed for.");
  }
  if (sidecar->bytes != static_cast<int64_t>(bytes)) {
    throw DataError(path + ": expected " + WithCommas(sidecar->bytes) +
                        " bytes as in " + SidecarName(path) + ", found " + WithCommas(bytes),
                    kPackAgain);
  }
}

// Maps a whole file to memory; returns nullptr for an empty file.
void* Map(const std::string& path, size_t* bytes) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (file < 0 || fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    const std::string reason = file < 0 ? std::strerror(errno) : "not a regular file";
    if (file >= 0) close(file);
    throw DataError("cannot read " + path + ": " + reason, "Check the path.");
  }
  *bytes = static_cast<size_t>(status.st_size);
  void* mapping = *bytes ? mmap(nullptr, *bytes, PROT_READ, MAP_PRIVATE, file, 0) : nullptr;
  close(file);
  if (mapping == MAP_FAILED) throw DataError(path + ": cannot map the file to memory");
  return mapping;
}

// Names the square image size that would match the file, if there is one.
std::string SizeHint(int channels, int64_t count, size_t bytes) {
  const __int128 each = static_cast<__int128>(count) * channels * sizeof(float);
  const __int128 rest = static_cast<__int128>(bytes) -
                        static_cast<__int128>(sizeof(int64_t)) * (static_cast<__int128>(count) + 1);
  const auto pixels = rest > 0 && rest % each == 0 ? static_cast<int64_t>(rest / each) : 0;
  const auto side = std::llround(std::sqrt(static_cast<double>(pixels)));
  if (side > 0 && side * side == pixels) {
    return "The size matches images of " + Joined(std::array<int64_t, 3>{channels, side, side}) +
           "; check model.input_shape.";
  }
  return "Check that the file is a packed file of this image shape and not truncated.";
}

void CheckSize(const std::string& path, const Shape& shape, int64_t count, size_t bytes) {
  if (count < 1) {
    throw DataError(path + ": expected at least 1 image in the header, found " +
                    std::to_string(count));
  }
  // 128 bits avoid an overflow, because the count of a file in another format can be any number.
  unsigned __int128 each = sizeof(float);
  for (const int size : shape) each *= static_cast<unsigned>(size);
  const unsigned __int128 expected =
      sizeof(int64_t) + static_cast<unsigned __int128>(count) * (each + sizeof(int64_t));
  if (bytes != expected) {
    throw DataError(path + ": expected " + WithCommas(expected) + " bytes for the header's " +
                        WithCommas(count) + " images of " + Joined(shape) +
                        " with their labels, found " + WithCommas(bytes),
                    SizeHint(shape[0], count, bytes));
  }
}

}  // namespace

std::string SidecarName(const std::string& path) {
  return std::filesystem::path(path + ".json").filename();
}

void CheckExists(const std::string& path) {
  if (!std::filesystem::is_regular_file(path)) {
    throw DataError("packed file " + path + " is missing",
                    "Write a packed file with `job pack MANIFEST`.");
  }
}

std::optional<Shape> DescribedShape(const std::string& path) {
  const auto sidecar = ReadSidecar(path);
  if (!sidecar) return {};
  return Shape{static_cast<int>(sidecar->shape[0]), static_cast<int>(sidecar->shape[1]),
               static_cast<int>(sidecar->shape[2])};
}

PackedFile::PackedFile(const std::string& path, const Shape& shape)
    : path_(path), shape_(shape), image_size_(1) {
  for (const int size : shape) image_size_ *= static_cast<size_t>(size);
  mapping_ = Map(path, &bytes_);
  try {
    if (bytes_ < sizeof(count_)) {
      throw DataError(path + ": expected an int64 count at the start, found a file of " +
                          std::to_string(bytes_) + " bytes",
                      "Use a packed file: an int64 count, then float32 images, then int64 labels.");
    }
    std::memcpy(&count_, mapping_, sizeof(count_));
    CheckSize(path, shape, count_, bytes_);
    CheckSidecar(path, shape, bytes_);
  } catch (...) {
    if (mapping_) munmap(mapping_, bytes_);
    throw;
  }
  const char* start = static_cast<const char*>(mapping_) + sizeof(count_);
  images_ = reinterpret_cast<const float*>(start);
  // The labels are copied, because they are aligned to four bytes only.
  labels_.resize(static_cast<size_t>(count_));
  std::memcpy(labels_.data(), images_ + count_ * image_size_, labels_.size() * sizeof(int64_t));
}

PackedFile::~PackedFile() { munmap(mapping_, bytes_); }

void PackedFile::CheckLabels(int64_t classes) const {
  size_t outside = 0;
  size_t first = 0;
  for (size_t index = 0; index < labels_.size(); ++index) {
    if (labels_[index] >= 0 && labels_[index] < classes) continue;
    if (outside++ == 0) first = index;
  }
  if (outside > 0) {
    throw DataError(path_ + ": label " + std::to_string(labels_[first]) + " of image " +
                        std::to_string(first) + " is outside the model's " +
                        std::to_string(classes) + " classes (invalid labels: " +
                        WithCommas(outside) + " of " + WithCommas(labels_.size()) + ")",
                    "Check that the packed file was made for this model.");
  }
}

}  // namespace tester
