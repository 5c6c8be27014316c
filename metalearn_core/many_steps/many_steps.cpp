// Many outer steps in one call: the program of one step again and again, without a way back to Python.
//
// A program's state, θ⁰ with φ and Adam's two averages, comes out of one step and goes into the next. What is
// different at every step, such as its tasks, lies ready in blocks.

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int STATE = 3;                            // arguments that a step gives anew, the first ones
constexpr int LOSSES = 0, TAKEN = 1, MOVED = 2;     // where a step's answers lie
constexpr int ANSWERS = MOVED + STATE;

using Program = void (*)(AtenTensorHandle*, AtenTensorHandle*);  // it takes over what it is given
using Clock = std::chrono::steady_clock;

void require(AOTITorchError code) {
  if (code != 0) throw std::runtime_error("a tensor could not be read");
}

// A reference to a tensor, given back at the end
struct Owned {
  AtenTensorHandle handle = nullptr;
  Owned() = default;
  explicit Owned(AtenTensorHandle given) : handle(given) {}
  Owned(Owned&& other) noexcept : handle(other.release()) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle, other.handle);
    return *this;
  }
  ~Owned() {
    if (handle != nullptr) aoti_torch_delete_tensor_object(handle);
  }
  AtenTensorHandle release() {
    AtenTensorHandle given = handle;
    handle = nullptr;
    return given;
  }
};

Owned again(AtenTensorHandle of) {
  AtenTensorHandle one = nullptr;
  require(aoti_torch_new_tensor_handle(of, &one));
  return Owned(one);
}

// Rows step * rows ... (step + 1) * rows - 1 of a block
Owned part(AtenTensorHandle block, int64_t step, int64_t rows) {
  int64_t axes = 0, offset = 0;
  int64_t *sizes = nullptr, *strides = nullptr;
  require(aoti_torch_get_dim(block, &axes));
  require(aoti_torch_get_sizes(block, &sizes));
  require(aoti_torch_get_strides(block, &strides));
  require(aoti_torch_get_storage_offset(block, &offset));
  std::vector<int64_t> shape(sizes, sizes + axes);
  shape[0] = rows;
  AtenTensorHandle one = nullptr;
  require(aoti_torch__reinterpret_tensor(
      block, axes, shape.data(), strides, offset + step * rows * strides[0], &one));
  return Owned(one);
}

char* data(const Owned& tensor) {
  void* found = nullptr;
  require(aoti_torch_get_data_ptr(tensor.handle, &found));
  return static_cast<char*>(found);
}

void copy(char* to, const Owned& from, int64_t bytes) { std::memcpy(to, data(from), bytes); }

}  // namespace

// Takes up to `count` steps, fewer once `seconds` are over or a seed that is alive takes none; returns how many,
// or -1 with a text in `error`. The arguments are those of the program. `rows`: how many rows of an argument
// belong to one step; 0 where all steps read the same. The state is written in place; `losses` and `taken` get a
// row of `seeds` for each step.
extern "C" int64_t metalearn_many_steps(
    void* program, int64_t count, double seconds, int64_t arguments, AtenTensorHandle* given, const int64_t* rows,
    int64_t seeds, int64_t element, const bool* alive, char* losses, bool* taken, char* error, int64_t room) {
  try {
    if (program == nullptr) throw std::runtime_error("there is no program");
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    std::vector<Owned> blocks, state;
    for (int64_t i = 0; i < arguments; ++i) blocks.emplace_back(given[i]);
    for (int i = 0; i < STATE; ++i) state.push_back(again(given[i]));
    int64_t step = 0;
    for (bool stopped = false; step < count && !stopped; ++step) {
      if (step > 0 && Clock::now() >= end) break;
      std::vector<AtenTensorHandle> inputs;
      for (int i = 0; i < STATE; ++i) inputs.push_back(state[i].release());
      for (int64_t i = STATE; i < arguments; ++i) {
        AtenTensorHandle block = blocks[i].handle;
        inputs.push_back((rows[i] > 0 ? part(block, step, rows[i]) : again(block)).release());
      }
      AtenTensorHandle answers[ANSWERS] = {};
      reinterpret_cast<Program>(program)(inputs.data(), answers);
      std::vector<Owned> found;
      for (AtenTensorHandle answer : answers) found.emplace_back(answer);
      copy(losses + step * seeds * element, found[LOSSES], seeds * element);
      copy(reinterpret_cast<char*>(taken + step * seeds), found[TAKEN], seeds);
      for (int64_t seed = 0; seed < seeds; ++seed) stopped |= alive[seed] && !taken[step * seeds + seed];
      for (int i = 0; i < STATE; ++i) state[i] = std::move(found[MOVED + i]);
    }
    for (int i = 0; i < STATE; ++i) {
      int64_t numbers = 0;
      require(aoti_torch_get_numel(blocks[i].handle, &numbers));
      copy(data(blocks[i]), state[i], numbers * element);
    }
    return step;
  } catch (const std::exception& problem) {
    std::strncpy(error, problem.what(), room - 1);
    return -1;
  }
}
