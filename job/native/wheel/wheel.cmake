# The library in the Python wheel of Paddle. Sets PADDLE_INCLUDE, PADDLE_LIBRARY, PADDLE_PARTS and
# PADDLE_DEFINITIONS.

# The library uses symbols of libpython.
find_package(Python3 3.11 EXACT REQUIRED COMPONENTS Interpreter Development.Embed)
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c "import importlib.metadata as m; print(m.distribution('paddlepaddle').locate_file('paddle/base/libpaddle.so'))"
  OUTPUT_VARIABLE PADDLE_LIBRARY OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT PADDLE_LIBRARY OR NOT EXISTS "${PADDLE_LIBRARY}")
  message(FATAL_ERROR "No library paddle/base/libpaddle.so for ${Python3_EXECUTABLE}. Set "
    "Python3_EXECUTABLE to the Python of a virtual environment with paddlepaddle (make native does "
    "this), or PADDLE_ROOT to Paddle's C++ archive.")
endif()
get_filename_component(PADDLE_LIBRARY "${PADDLE_LIBRARY}" REALPATH)

# The declarations in paddle_inference_api.h are valid for libraries that export these symbols only.
execute_process(COMMAND "${CMAKE_NM}" -D --defined-only "${PADDLE_LIBRARY}"
  OUTPUT_VARIABLE EXPORTED RESULT_VARIABLE NM_RESULT)
if(NOT NM_RESULT EQUAL 0)
  message(FATAL_ERROR "${CMAKE_NM} cannot list the symbols of ${PADDLE_LIBRARY}.")
endif()
file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/symbols.txt" SYMBOLS)
foreach(SYMBOL IN LISTS SYMBOLS)
  string(FIND "${EXPORTED}" " ${SYMBOL}\n" FOUND)
  if(FOUND EQUAL -1)
    list(APPEND MISSING "${SYMBOL}")
  endif()
endforeach()
if(MISSING)
  list(JOIN MISSING " " MISSING)
  message(FATAL_ERROR "${PADDLE_LIBRARY} does not export: ${MISSING}. Install the locked version of "
    "paddlepaddle (requirements.lock).")
endif()

set(PADDLE_INCLUDE "${CMAKE_CURRENT_LIST_DIR}")
set(PADDLE_PARTS Python3::Python)
set(PADDLE_DEFINITIONS PADDLE_OF_WHEEL)
