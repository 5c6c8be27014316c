// Batches of small matrix products, as an inner loop takes them: one for each task and seed.
//
// Libraries of linear algebra are made for large products; of these, each is a few thousand operations, and
// is over before such a library has begun. One factor is laid out in rows of whole vectors, and a tile of
// the result stays in registers.

#include <ATen/cpu/vec/vec.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace at {
int get_num_threads();
}

namespace {

struct Strides {
  int64_t batch, row, column;
};

template <typename Real>
struct Product {
  using Vec = at::vec::Vectorized<Real>;
  static constexpr int WIDTH = Vec::size();
  static constexpr int ROWS = sizeof(Vec) >= 64 ? 6 : 4, COLUMNS = 3;  // of a register tile, in vectors

  // c[r][:] = sum_k a[r, k] b[k][:] for R rows and C vectors, `last` of the last one's numbers
  template <int R, int C, bool WHOLE>
  static void tile(
      const Real* a, const Strides& sa, const Real* b, int64_t stride, int depth, Real* c, int columns, int last) {
    Vec sums[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) sums[r][v] = Vec(Real(0));
    }
    for (int k = 0; k < depth; ++k) {
      Vec row[C];
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) {
        const Real* from = b + k * stride + v * WIDTH;
        row[v] = WHOLE || v + 1 < C ? Vec::loadu(from) : Vec::loadu(from, last);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vec scalar(a[r * sa.row + k * sa.column]);
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) sums[r][v] = at::vec::fmadd(scalar, row[v], sums[r][v]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) {
        Real* to = c + r * columns + v * WIDTH;
        WHOLE || v + 1 < C ? sums[r][v].store(to) : sums[r][v].store(to, last);
      }
    }
  }

  template <int R = ROWS, int C = COLUMNS>
  static void part(
      int rows, int vectors, const Real* a, const Strides& sa, const Real* b, int64_t stride, int depth, Real* c,
      int columns, int last) {
    if constexpr (R > 1) {
      if (rows < R) return part<R - 1, C>(rows, vectors, a, sa, b, stride, depth, c, columns, last);
    }
    if constexpr (C > 1) {
      if (vectors < C) return part<R, C - 1>(rows, vectors, a, sa, b, stride, depth, c, columns, last);
    }
    last == WIDTH ? tile<R, C, true>(a, sa, b, stride, depth, c, columns, last)
                  : tile<R, C, false>(a, sa, b, stride, depth, c, columns, last);
  }

  // b [depth, columns], whose rows are not contiguous, in rows that are
  static void pack(const Real* b, const Strides& sb, int depth, int columns, Real* packed) {
    if (sb.row == 1) return at::vec::transpose_mxn<Real>(b, sb.column, packed, columns, columns, depth);
    for (int k = 0; k < depth; ++k) {
      for (int j = 0; j < columns; ++j) packed[k * columns + j] = b[k * sb.row + j * sb.column];
    }
  }

  // c [rows, columns], contiguous
  static void one(
      int rows, int columns, int depth, const Real* a, const Strides& sa, const Real* b, const Strides& sb,
      Real* c, std::vector<Real>& packed) {
    int64_t stride = sb.row;
    if (sb.column != 1) {
      packed.resize(columns * depth);
      pack(b, sb, depth, columns, packed.data());
      b = packed.data(), stride = columns;
    }
    const int vectors = (columns + WIDTH - 1) / WIDTH;
    for (int v = 0; v < vectors; v += COLUMNS) {
      const int here = std::min(COLUMNS, vectors - v), last = std::min(WIDTH, columns - (v + here - 1) * WIDTH);
      for (int r = 0; r < rows; r += ROWS) {
        part(std::min(ROWS, rows - r), here, a + r * sa.row, sa, b + v * WIDTH, stride, depth,
             c + r * columns + v * WIDTH, columns, last);
      }
    }
  }

  static Strides turned(const Strides& s) { return {s.batch, s.column, s.row}; }

  // Each thread takes a run of the batch. Where that fills vectors better, the turned product is taken.
  static void all(
      int64_t batch, int rows, int columns, int depth, const Real* a, const Strides& sa, const Real* b,
      const Strides& sb, Real* c) {
    const int upright = rows * ((columns + WIDTH - 1) / WIDTH), turn = columns * ((rows + WIDTH - 1) / WIDTH);
    const int64_t size = int64_t(rows) * columns;
    const int threads = batch * size * depth < 200000 ? 1 : at::get_num_threads();
#pragma omp parallel num_threads(threads)
    {
      std::vector<Real> packed, turned_result(size);
#pragma omp for schedule(static)
      for (int64_t i = 0; i < batch; ++i) {
        const Real *left = a + i * sa.batch, *right = b + i * sb.batch;
        if (upright <= turn) {
          one(rows, columns, depth, left, sa, right, sb, c + i * size, packed);
        } else {
          one(columns, rows, depth, right, turned(sb), left, turned(sa), turned_result.data(), packed);
          ::at::vec::transpose_mxn<Real>(turned_result.data(), rows, c + i * size, columns, columns, rows);
        }
      }
    }
  }
};

}  // namespace

// As compiled programs call it, without torch's table of operators in between
extern "C" AOTITorchError aoti_torch_cpu_bmm(AtenTensorHandle a, AtenTensorHandle b, AtenTensorHandle* result) {
  struct Factor {
    int64_t *sizes = nullptr, *strides = nullptr;
    void* data = nullptr;
    bool read(AtenTensorHandle of) {
      return !aoti_torch_get_sizes(of, &sizes) && !aoti_torch_get_strides(of, &strides) &&
          !aoti_torch_get_data_ptr(of, &data);
    }
    Strides all() const { return {strides[0], strides[1], strides[2]}; }
  } left, right;
  int32_t dtype = 0;
  if (!left.read(a) || !right.read(b) || aoti_torch_get_dtype(a, &dtype)) return 1;
  const int64_t batch = left.sizes[0], rows = left.sizes[1], depth = left.sizes[2], columns = right.sizes[2];
  const int64_t sizes[] = {batch, rows, columns}, strides[] = {rows * columns, columns, 1};
  void* c = nullptr;
  if (aoti_torch_empty_strided(3, sizes, strides, dtype, aoti_torch_device_type_cpu(), 0, result) ||
      aoti_torch_get_data_ptr(*result, &c)) {
    return 1;
  }
  const auto call = [&](auto zero) {
    using Real = decltype(zero);
    Product<Real>::all(
        batch, rows, columns, depth, static_cast<const Real*>(left.data), left.all(),
        static_cast<const Real*>(right.data), right.all(), static_cast<Real*>(c));
  };
  dtype == aoti_torch_dtype_float32() ? call(float(0)) : call(double(0));
  return 0;
}

// As Python calls it: `shape` is batch, rows, columns and depth, then the strides of both factors
#define ENTRY(REAL)                                                                                         \
  extern "C" void bmm_##REAL(const int64_t* shape, const REAL* a, const REAL* b, REAL* c) {                 \
    Product<REAL>::all(                                                                                     \
        shape[0], shape[1], shape[2], shape[3], a, {shape[4], shape[5], shape[6]}, b,                       \
        {shape[7], shape[8], shape[9]}, c);                                                                 \
  }
ENTRY(float)
ENTRY(double)
