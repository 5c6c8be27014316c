// Batches of small matrix products, as an inner loop takes them: one for each task and seed.
//
// Libraries of linear algebra are made for large products; of these, each is a few thousand operations, and
// is over before such a library has begun. One factor is laid out in rows of whole vectors, and a tile of
// the result stays in registers.

#include <ATen/cpu/vec/vec.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

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

torch::stable::Tensor bmm(const torch::stable::Tensor& a, const torch::stable::Tensor& b) {
  const auto result = torch::stable::new_empty(a, {a.size(0), a.size(1), b.size(2)});
  const Strides sa{a.stride(0), a.stride(1), a.stride(2)}, sb{b.stride(0), b.stride(1), b.stride(2)};
  const auto call = [&](auto zero) {
    using Real = decltype(zero);
    Product<Real>::all(
        a.size(0), a.size(1), b.size(2), a.size(2), static_cast<const Real*>(a.data_ptr()), sa,
        static_cast<const Real*>(b.data_ptr()), sb, static_cast<Real*>(result.data_ptr()));
  };
  a.element_size() == 4 ? call(float(0)) : call(double(0));
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(metalearn, CPU, m) { m.impl("bmm", TORCH_BOX(&bmm)); }
