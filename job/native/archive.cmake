# Paddle's C++ archive in PADDLE_ROOT. Sets PADDLE_INCLUDE, PADDLE_LIBRARY and PADDLE_PARTS.

# The cached results are cleared, because PADDLE_ROOT can have changed.
unset(PADDLE_INCLUDE CACHE)
unset(PADDLE_LIBRARY_FILE CACHE)
find_path(PADDLE_INCLUDE paddle_inference_api.h
  PATHS "${PADDLE_ROOT}/paddle/include" NO_DEFAULT_PATH)
find_library(PADDLE_LIBRARY_FILE NAMES paddle_inference
  PATHS "${PADDLE_ROOT}/paddle/lib" NO_DEFAULT_PATH)
if(NOT PADDLE_INCLUDE OR NOT PADDLE_LIBRARY_FILE)
  message(FATAL_ERROR "No inference library in PADDLE_ROOT='${PADDLE_ROOT}': expected "
    "paddle/include/paddle_inference_api.h and paddle/lib/libpaddle_inference.so in this folder. "
    "Set PADDLE_ROOT to the unpacked archive from Paddle's site, or leave it empty to use the "
    "library in the Python wheel of Paddle.")
endif()
# The real path, because the library loads other libraries from its own folder.
get_filename_component(PADDLE_LIBRARY "${PADDLE_LIBRARY_FILE}" REALPATH)
# The library of the archive may not find its parts, so they are linked explicitly.
file(GLOB PADDLE_PARTS "${PADDLE_ROOT}/third_party/install/*/lib/lib*.so*"
  "${PADDLE_ROOT}/paddle/lib/libcommon.so" "${PADDLE_ROOT}/paddle/lib/libphi*.so")
