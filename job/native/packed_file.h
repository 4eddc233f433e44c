// The tutorial's packed binary format (section 4.1), little-endian: int64 count, float32 images
// [count, channels, height, width], int64 labels [count].
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tester {

using Shape = std::array<int, 3>;  // channels, height, width

// Returns the name of the sidecar of a packed file, without its folder.
std::string SidecarName(const std::string& path);

// Checks that the packed file exists. Throws DataError.
void CheckExists(const std::string& path);

// Returns the shape in the sidecar FILE.json; nothing without a sidecar. Throws DataError.
std::optional<Shape> DescribedShape(const std::string& path);

// A packed file mapped to memory. Its size is checked against its header and its sidecar.
class PackedFile {
 public:
  // Throws DataError if the file is missing, empty or truncated, or has another shape.
  PackedFile(const std::string& path, const Shape& shape);
  ~PackedFile();
  PackedFile(const PackedFile&) = delete;
  PackedFile& operator=(const PackedFile&) = delete;

  // Throws DataError if a label is negative or not below `classes`.
  void CheckLabels(int64_t classes) const;

  int64_t count() const { return count_; }
  const Shape& shape() const { return shape_; }
  size_t image_size() const { return image_size_; }  // number of floats
  const float* image(int64_t index) const { return images_ + index * image_size_; }
  const int64_t* labels() const { return labels_.data(); }

 private:
  std::string path_;
  Shape shape_;
  size_t image_size_;
  int64_t count_ = 0;
  void* mapping_ = nullptr;
  size_t bytes_ = 0;
  const float* images_ = nullptr;
  std::vector<int64_t> labels_;
};

}  // namespace tester
