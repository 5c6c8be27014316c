// Tiny networks on very many scalars: coordinates lie in the lanes of vectors, features beside each other.
//
// A block of coordinates passes through all layers before the next one comes, so that its activations stay
// in cache; the vector-Jacobian product computes them again instead of reading them from memory. Layout:
// x [groups, rows, d, n], parameters [groups, P] (each layer's weight [out, in], then its bias [out]).

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

namespace {

enum Activation { RELU, TANH, SIGMOID, ELU };

// Vectors: in a block.
template <typename Real, int Vectors>
struct Kernel {
  using Vec = at::vec::Vectorized<Real>;
  static constexpr int WIDTH = Vec::size();
  static constexpr int VECTORS = Vectors;
  static constexpr int BLOCK = VECTORS * WIDTH;          // coordinates
  static constexpr int LANES = sizeof(Vec) >= 64 ? 4 : 2;  // vectors of a register tile
  static constexpr int OUTS = 5, INS = sizeof(Vec) >= 64 ? 4 : 2;  // of a tile, whose sums fit the registers
  static constexpr float SATURATED = 8.32f;  // where 1 is as near to tanh as what the rational function ends with

  static Vec load(const Real* p) { return Vec::loadu(p); }

  // Loaded once for several products: left alone, GCC folds the load into each of them, and they wait for loads.
  static C10_ALWAYS_INLINE Vec held(const Real* p) {
    Vec out = load(p);
#if defined(__GNUC__) && defined(__AVX2__)
    typedef Real Register __attribute__((vector_size(sizeof(Vec))));
    Register value;
    std::memcpy(&value, &out, sizeof(Vec));
    asm("" : "+v"(value));
    std::memcpy(&out, &value, sizeof(Vec));
#endif
    return out;
  }

  static C10_ALWAYS_INLINE Vec polynomial(const Vec& x, std::initializer_list<float> falling) {
    Vec sum(*falling.begin());
    for (auto c = falling.begin() + 1; c != falling.end(); ++c) sum = at::vec::fmadd(sum, x, Vec(*c));
    return sum;
  }

  // In float32 the gates of an LSTM cost more than its products where exp and tanh are a library's calls.
  // e^z = 2^k e^r with |r| <= ln(2) / 2; k is rounded in the low bits of a float, and shifted to the exponent.
  static C10_ALWAYS_INLINE Vec exp_of(const Vec& z) {
    if constexpr (std::is_same_v<Real, float>) {
      typedef int32_t Bits __attribute__((vector_size(sizeof(Vec))));
      const Vec rounding(12582912.0f), x = at::vec::clamp(z, Vec(-87.0f), Vec(88.0f));
      const Vec shifted = at::vec::fmadd(x, Vec(1.44269504f), rounding), k = shifted - rounding;
      const Vec r = at::vec::fmadd(k, Vec(-1.42860677e-6f), at::vec::fmadd(k, Vec(-0.693145752f), x));
      const Vec e = polynomial(r, {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1});
      Bits power, value;
      std::memcpy(&power, &shifted, sizeof(Vec)), std::memcpy(&value, &e, sizeof(Vec));
      value += power << 23;
      Vec out;
      std::memcpy(&out, &value, sizeof(Vec));
      return out;
    } else {
      return z.exp();
    }
  }

  // An odd rational function, near enough to tanh where |z| < 7.9. It ends two units of float32 short of 1: left
  // there, a saturated unit would keep a slope of 5e-7, which a large input makes a gradient of.
  static C10_ALWAYS_INLINE Vec tanh_of(const Vec& z) {
    if constexpr (std::is_same_v<Real, float>) {
      const Vec x = at::vec::clamp(z, Vec(-7.90531110763549805f), Vec(7.90531110763549805f)), square = x * x;
      const Vec over = polynomial(square, {-2.76076847742355e-16f, 2.00018790482477e-13f, -8.60467152213735e-11f,
                                           5.12229709037114e-08f, 1.48572235717979e-05f, 6.37261928875436e-04f,
                                           4.89352455891786e-03f});
      const Vec under = polynomial(square, {1.19825839466702e-06f, 1.18534705686654e-04f, 2.26843463243900e-03f,
                                            4.89352518554385e-03f});
      return Vec::blendv(x * over / under, at::vec::clamp(z, Vec(-1.0f), Vec(1.0f)), z.abs() > Vec(SATURATED));
    } else {
      return z.tanh();
    }
  }

  // out[o] = bias[o] + sum_i w[o * row + i * col] in[i], for COUNT outputs
  template <int COUNT>
  static void affine_tile(
      const Real* w, int row, int col, int ins, const Real* bias, const Real* in, Real* out) {
    for (int v = 0; v < VECTORS; v += LANES) {
      Vec sums[COUNT][LANES];
#pragma GCC unroll 8
      for (int o = 0; o < COUNT; ++o) {
#pragma GCC unroll 8
        for (int l = 0; l < LANES; ++l) sums[o][l] = Vec(bias ? bias[o] : Real(0));
      }
      for (int i = 0; i < ins; ++i) {
        Vec x[LANES];
#pragma GCC unroll 8
        for (int l = 0; l < LANES; ++l) x[l] = held(in + i * BLOCK + (v + l) * WIDTH);
#pragma GCC unroll 8
        for (int o = 0; o < COUNT; ++o) {
          const Vec weight(w[o * row + i * col]);
#pragma GCC unroll 8
          for (int l = 0; l < LANES; ++l) sums[o][l] = at::vec::fmadd(weight, x[l], sums[o][l]);
        }
      }
#pragma GCC unroll 8
      for (int o = 0; o < COUNT; ++o) {
#pragma GCC unroll 8
        for (int l = 0; l < LANES; ++l) sums[o][l].store(out + o * BLOCK + (v + l) * WIDTH);
      }
    }
  }

  template <int COUNT = OUTS>
  static void affine_part(
      int count, const Real* w, int row, int col, int ins, const Real* bias, const Real* in, Real* out) {
    if (count == COUNT) return affine_tile<COUNT>(w, row, col, ins, bias, in, out);
    if constexpr (COUNT > 1) affine_part<COUNT - 1>(count, w, row, col, ins, bias, in, out);
  }

  static void affine(
      const Real* w, int row, int col, int ins, int outs, const Real* bias, const Real* in, Real* out) {
    for (int o = 0; o < outs; o += OUTS) {
      affine_part(std::min(OUTS, outs - o), w + o * row, row, col, ins, bias ? bias + o : nullptr, in,
                  out + o * BLOCK);
    }
  }

  // sums[o * ins + i] += delta[o] in[i], lane by lane
  template <int O, int I>
  static void outer_tile(const Real* delta, const Real* in, int ins, Real* sums) {
    Vec found[O][I];
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
#pragma GCC unroll 8
      for (int i = 0; i < I; ++i) found[o][i] = Vec(Real(0));
    }
    for (int v = 0; v < VECTORS; ++v) {
      Vec x[I];
#pragma GCC unroll 8
      for (int i = 0; i < I; ++i) x[i] = load(in + i * BLOCK + v * WIDTH);
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) {
        const Vec d = held(delta + o * BLOCK + v * WIDTH);
#pragma GCC unroll 8
        for (int i = 0; i < I; ++i) found[o][i] = at::vec::fmadd(d, x[i], found[o][i]);
      }
    }
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
#pragma GCC unroll 8
      for (int i = 0; i < I; ++i) {
        Real* sum = sums + (o * ins + i) * WIDTH;
        (load(sum) + found[o][i]).store(sum);
      }
    }
  }

  template <int O = OUTS, int I = INS>
  static void outer_part(int outs, int count, const Real* delta, const Real* in, int ins, Real* sums) {
    if constexpr (O > 1) {
      if (outs < O) return outer_part<O - 1, I>(outs, count, delta, in, ins, sums);
    }
    if constexpr (I > 1) {
      if (count < I) return outer_part<O, I - 1>(outs, count, delta, in, ins, sums);
    }
    outer_tile<O, I>(delta, in, ins, sums);
  }

  // weight's and, unless there is none, bias' gradients of one layer, lane by lane
  static void outer(const Real* delta, const Real* in, int ins, int outs, Real* weight, Real* bias) {
    for (int o = 0; o < outs; o += OUTS) {
      for (int i = 0; i < ins; i += INS) {
        outer_part(std::min(OUTS, outs - o), std::min(INS, ins - i), delta + o * BLOCK, in + i * BLOCK, ins,
                   weight + (o * ins + i) * WIDTH);
      }
    }
    for (int o = 0; bias && o < outs; ++o) {
      Vec sum = load(bias + o * WIDTH);
      for (int v = 0; v < VECTORS; ++v) sum = sum + load(delta + o * BLOCK + v * WIDTH);
      sum.store(bias + o * WIDTH);
    }
  }

  static C10_ALWAYS_INLINE Vec sigmoid(const Vec& z) { return Vec(Real(1)) / (Vec(Real(1)) + exp_of(z.neg())); }

  template <typename Function>
  static void each(int count, Real* x, Function f) {
    for (int at = 0; at < count * BLOCK; at += WIDTH) f(load(x + at)).store(x + at);
  }

  static void activate(int activation, int count, Real* x) {
    const Vec zero(Real(0));
    switch (activation) {
      case RELU: return each(count, x, [&](Vec z) { return at::vec::clamp_min(z, zero); });
      case TANH: return each(count, x, [](Vec z) { return tanh_of(z); });
      case SIGMOID: return each(count, x, [](Vec z) { return sigmoid(z); });
      case ELU: return each(count, x, [&](Vec z) { return Vec::blendv(z, z.expm1(), z < zero); });
    }
  }

  template <typename Function>
  static void chain(int count, const Real* a, Real* delta, Function slope) {
    for (int at = 0; at < count * BLOCK; at += WIDTH) {
      (load(delta + at) * slope(load(a + at))).store(delta + at);
    }
  }

  // delta times the derivative of the activation, which each of them tells from its value
  static void slope(int activation, int count, const Real* a, Real* delta) {
    const Vec zero(Real(0)), one(Real(1));
    switch (activation) {
      case RELU:
        for (int at = 0; at < count * BLOCK; at += WIDTH) {
          Vec::blendv(load(delta + at), zero, load(a + at) <= zero).store(delta + at);
        }
        return;
      case TANH: return chain(count, a, delta, [&](Vec y) { return one - y * y; });
      case SIGMOID: return chain(count, a, delta, [&](Vec y) { return y * (one - y); });
      case ELU: return chain(count, a, delta, [&](Vec y) { return Vec::blendv(y + one, one, y >= zero); });
    }
  }

  struct Network {
    const int64_t* widths;
    int layers, activation;
    int parameters() const {
      int count = 0;
      for (int l = 0; l < layers; ++l) count += (widths[l] + 1) * widths[l + 1];
      return count;
    }
    int features() const {
      int count = 0;
      for (int l = 0; l <= layers; ++l) count += widths[l];
      return count;
    }
    int widest() const { return *std::max_element(widths, widths + layers + 1); }
  };

  static void read(const Real* from, int count, int64_t stride, int used, Real* block) {
    for (int f = 0; f < count; ++f) {
      std::copy(from + f * stride, from + f * stride + used, block + f * BLOCK);
      std::fill(block + f * BLOCK + used, block + (f + 1) * BLOCK, Real(0));
    }
  }

  static void write(const Real* block, int count, int64_t stride, int used, Real* to) {
    for (int f = 0; f < count; ++f) std::copy(block + f * BLOCK, block + f * BLOCK + used, to + f * stride);
  }

  // A block's rows. What is used once stays where it lies; of a block that is cut short there is a copy.
  template <typename T>
  struct Rows {
    T* first;
    int64_t stride;
    T* operator[](int feature) const { return first + feature * stride; }
  };

  static Rows<const Real> rows_in(const Real* from, int count, int64_t stride, int used, std::vector<Real>& block) {
    if (used == BLOCK) return {from, stride};
    read(from, count, stride, used, block.data());
    return {block.data(), BLOCK};
  }

  static Rows<Real> rows_out(Real* to, int64_t stride, int used, std::vector<Real>& block) {
    return used == BLOCK ? Rows<Real>{to, stride} : Rows<Real>{block.data(), BLOCK};
  }

  // activations: each layer's input beside the next; returns where the output stands
  static Real* forward_block(const Network& net, const Real* parameters, Real* activations) {
    const Real* w = parameters;
    Real* in = activations;
    for (int l = 0; l < net.layers; ++l) {
      const int ins = net.widths[l], outs = net.widths[l + 1];
      Real* out = in + ins * BLOCK;
      affine(w, ins, 1, ins, outs, w + ins * outs, in, out);
      if (l + 1 < net.layers) activate(net.activation, outs, out);
      w += (ins + 1) * outs;
      in = out;
    }
    return in;
  }

  // The network with each activation replaced by its slope at `activations`: from what stands in the first rows of
  // `line` to every layer's input, or without biases to its derivative; returns where the output is.
  static Real* linear_block(
      const Network& net, const Real* parameters, const Real* activations, bool biases, Real* line) {
    const Real* w = parameters;
    for (int l = 0; l < net.layers; ++l) {
      const int ins = net.widths[l], outs = net.widths[l + 1];
      Real* out = line + ins * BLOCK;
      activations += ins * BLOCK;
      affine(w, ins, 1, ins, outs, biases ? w + ins * outs : nullptr, line, out);
      if (l + 1 < net.layers) slope(net.activation, outs, activations, out);
      w += (ins + 1) * outs;
      line = out;
    }
    return line;
  }

  // delta: the cotangent of the output, then of each layer's input; factors, laid out as activations are: what
  // cotangents are multiplied by for the weights, the activations themselves or another line through them;
  // sums: lane-wise gradients of parameters
  static Real* backward_block(
      const Network& net, const Real* parameters, const Real* activations, const Real* factors, bool biases,
      Real* delta, Real* other, Real* sums) {
    int at = net.parameters();
    const int64_t last = (net.features() - net.widths[net.layers]) * BLOCK;
    const Real *in = activations + last, *factor = factors + last;
    for (int l = net.layers - 1; l >= 0; --l) {
      const int ins = net.widths[l], outs = net.widths[l + 1];
      at -= (ins + 1) * outs;
      in -= ins * BLOCK, factor -= ins * BLOCK;
      outer(delta, factor, ins, outs, sums + at * WIDTH, biases ? sums + (at + ins * outs) * WIDTH : nullptr);
      affine(parameters + at, 1, ins, outs, ins, nullptr, delta, other);
      if (l) slope(net.activation, ins, in, other);
      std::swap(delta, other);
    }
    return delta;
  }

  // A cell of an LSTM and a linear readout of what it puts out. parameters: W [4 hidden, ins + hidden] and
  // its bias, gates in the order i, f, g, o; then the readout's weight [outs, hidden] and bias.
  struct Cell {
    int ins, hidden, outs;
    int joined() const { return ins + hidden; }
    int readout() const { return 4 * hidden * (joined() + 1); }
    int parameters() const { return readout() + outs * (hidden + 1); }
  };

  struct CellBlock {  // in: x and h; gates: i, f, g, o; cell: before and after; seen: tanh of it; h after; y
    std::vector<Real> in, gates, before, after, seen, h, y;
    explicit CellBlock(const Cell& c)
        : in(c.joined() * BLOCK), gates(4 * c.hidden * BLOCK), before(c.hidden * BLOCK), after(before),
          seen(before), h(before), y(c.outs * BLOCK) {}
  };

  static void forward_cell(
      const Cell& c, const Real* p, CellBlock& b, Rows<const Real> before, Rows<Real> after) {
    const int wide = c.hidden * BLOCK, joined = c.joined();
    affine(p, joined, 1, joined, 4 * c.hidden, p + 4 * c.hidden * joined, b.in.data(), b.gates.data());
    Real *i = b.gates.data(), *f = i + wide, *g = f + wide, *o = g + wide;
    for (int at = 0; at < wide; at += WIDTH) {
      const int unit = at / BLOCK, lane = at % BLOCK;
      const Vec input = sigmoid(load(i + at)), keep = sigmoid(load(f + at));
      const Vec candidate = tanh_of(load(g + at)), out = sigmoid(load(o + at));
      const Vec now = at::vec::fmadd(keep, load(before[unit] + lane), input * candidate), seen = tanh_of(now);
      input.store(i + at), keep.store(f + at), candidate.store(g + at), out.store(o + at);
      now.store(after[unit] + lane), seen.store(b.seen.data() + at), (out * seen).store(b.h.data() + at);
    }
    const Real* r = p + c.readout();
    affine(r, c.hidden, 1, c.hidden, c.outs, r + c.outs * c.hidden, b.h.data(), b.y.data());
  }

  // dy, dh, dc: cotangents of y, h and the cell after; of the cell before, to_before, and of x and h, din
  static void backward_cell(
      const Cell& c, const Real* p, CellBlock& b, Rows<const Real> before, const Real* dy, Rows<const Real> dh,
      Rows<const Real> dc, Rows<Real> to_before, Real* din, Real* sums) {
    const int wide = c.hidden * BLOCK, joined = c.joined();
    const int readout = c.readout();
    outer(dy, b.h.data(), c.hidden, c.outs, sums + readout * WIDTH,
          sums + (readout + c.outs * c.hidden) * WIDTH);
    affine(p + readout, 1, c.hidden, c.outs, c.hidden, nullptr, dy, b.h.data());
    Real *i = b.gates.data(), *f = i + wide, *g = f + wide, *o = g + wide;
    const Vec one(Real(1));
    for (int at = 0; at < wide; at += WIDTH) {
      const int unit = at / BLOCK, lane = at % BLOCK;
      const Vec input = load(i + at), keep = load(f + at), candidate = load(g + at), out = load(o + at);
      const Vec seen = load(b.seen.data() + at), d = load(dh[unit] + lane) + load(b.h.data() + at);
      const Vec cell = at::vec::fmadd(d * out, one - seen * seen, load(dc[unit] + lane));
      (cell * candidate * input * (one - input)).store(i + at);
      (cell * load(before[unit] + lane) * keep * (one - keep)).store(f + at);
      (cell * input * (one - candidate * candidate)).store(g + at);
      (d * seen * out * (one - out)).store(o + at);
      (cell * keep).store(to_before[unit] + lane);
    }
    outer(b.gates.data(), b.in.data(), joined, 4 * c.hidden, sums, sums + 4 * c.hidden * joined * WIDTH);
    affine(p, 1, joined, 4 * c.hidden, joined, nullptr, b.gates.data(), din);
  }
};

template <typename Real>
using NetworkKernel = Kernel<Real, 4>;
// a cell reads and writes many rows, each on a page of its own: longer pieces of them
template <typename Real>
using CellKernel = Kernel<Real, 16>;

// How the coordinates of all groups are cut: spans of a row, some of them an item that one thread works on.
// It depends on the shapes alone, so that sums are the same whatever the number of threads.
struct Items {
  int64_t groups, rows, n, threads, per_row, length, spans, each_group;

  Items(const int64_t* shape, int64_t block)
      : groups(shape[0]), rows(shape[1]), n(shape[2]), threads(shape[3]) {
    per_row = std::max<int64_t>(1, (n + 1023) / 1024);
    length = ((n + per_row - 1) / per_row + block - 1) / block * block;
    spans = rows * per_row;
    each_group = std::min(spans, std::max<int64_t>(4, rows * n / 4096));
  }

  // body(row, first, used) for every block of an item
  template <typename Body>
  void walk(int64_t item, int64_t block, Body body) const {
    const int64_t group = item / each_group, index = item % each_group;
    for (int64_t span = index * spans / each_group; span < (index + 1) * spans / each_group; ++span) {
      const int64_t first = span % per_row * length, last = std::min(n, first + length);
      for (int64_t at = first; at < last; at += block) {
        body(group * rows + span / per_row, at, (int)std::min(block, last - at));
      }
    }
  }

  // worker() makes a thread's own `void(item)`
  template <typename Worker>
  void run(Worker worker) const {
#pragma omp parallel num_threads(threads)
    {
      auto work = worker();
#pragma omp for schedule(static)
      for (int64_t item = 0; item < groups * each_group; ++item) work(item);
    }
  }

  // body(group)
  template <typename Body>
  void for_groups(Body body) const {
#pragma omp parallel for num_threads(std::min(threads, groups)) schedule(static)
    for (int64_t group = 0; group < groups; ++group) body(group);
  }

  // The sums of a group's items, added in their order.
  template <typename Real>
  void add_up(int64_t group, const std::vector<double>& partial, int64_t stride, int64_t count, Real* total) const {
    for (int64_t at = 0; at < count; ++at) {
      double sum = 0;
      for (int64_t index = 0; index < each_group; ++index) {
        sum += partial[(group * each_group + index) * stride + at];
      }
      total[at] = sum;
    }
  }
};

template <typename Real>
void fold(const std::vector<Real>& sums, int64_t count, double* total) {
  using Vec = at::vec::Vectorized<Real>;
  for (int64_t at = 0; at < count; ++at) {
    total[at] = at::vec::vec_reduce_all<Real>(
        [](const Vec& a, const Vec& b) { return a + b; }, Vec::loadu(sums.data() + at * Vec::size()));
  }
}

#include "segments.h"

// Every group's segments, where that is a way to evaluate its network.
template <typename Real>
std::vector<std::unique_ptr<Segments<Real>>> segments_of(
    const typename NetworkKernel<Real>::Network& net, Items& items, const Real* x, const Real* parameters) {
  std::vector<std::unique_ptr<Segments<Real>>> found(items.groups);
  const int64_t coordinates = items.rows * items.n;
  if (!Segments<Real>::apply(net, coordinates)) return found;
  items.for_groups([&](int64_t group) {
    auto made = std::make_unique<Segments<Real>>(
        net, parameters + group * net.parameters(), x + group * coordinates, coordinates);
    if (made->found()) found[group] = std::move(made);
  });
  // finding its segment is so little for each coordinate that sharing a few thousand costs more
  const bool all = std::all_of(found.begin(), found.end(), [](const auto& one) { return bool(one); });
  if (all && items.groups * coordinates < 16384) items.threads = 1;
  return found;
}

// shape: groups, rows, n, threads, activation, layers, widths
template <typename Real>
void network(const int64_t* shape, const Real* x, const Real* parameters, Real* out) {
  using K = NetworkKernel<Real>;
  const typename K::Network net{shape + 6, (int)shape[5], (int)shape[4]};
  Items items(shape, K::BLOCK);
  const int64_t n = items.n, ins = net.widths[0], outs = net.widths[net.layers], P = net.parameters();
  const auto segments = segments_of(net, items, x, parameters);
  items.run([&] {
    return [&, activations = std::vector<Real>(net.features() * K::BLOCK)](int64_t item) mutable {
      const auto& of_group = segments[item / items.each_group];
      items.walk(item, K::BLOCK, [&](int64_t row, int64_t at, int used) {
        Real *in = activations.data(), *y = in + ins * K::BLOCK;
        K::read(x + row * ins * n + at, ins, n, used, in);
        of_group ? of_group->values(in, y) : void(y = K::forward_block(net, parameters + row / items.rows * P, in));
        K::write(y, outs, n, used, out + row * outs * n + at);
      });
    };
  });
}

template <typename Real>
void network_vjp(
    const int64_t* shape, const Real* x, const Real* parameters, const Real* cotangent, Real* grad_x,
    Real* grad_parameters) {
  using K = NetworkKernel<Real>;
  const typename K::Network net{shape + 6, (int)shape[5], (int)shape[4]};
  Items items(shape, K::BLOCK);
  const int64_t n = items.n, ins = net.widths[0], outs = net.widths[net.layers], P = net.parameters();
  const auto segments = segments_of(net, items, x, parameters);
  int64_t stride = P;
  for (const auto& one : segments) stride = std::max(stride, one ? one->moments() : 0);
  std::vector<double> partial(items.groups * items.each_group * stride);
  items.run([&] {
    std::vector<Real> widest(net.widest() * K::BLOCK);
    return [&, activations = std::vector<Real>(net.features() * K::BLOCK), delta = widest, other = widest,
            sums = std::vector<Real>(P * K::WIDTH)](int64_t item) mutable {
      const auto& of_group = segments[item / items.each_group];
      double* found = partial.data() + item * stride;
      if (!of_group) std::fill(sums.begin(), sums.end(), Real(0));
      items.walk(item, K::BLOCK, [&](int64_t row, int64_t at, int used) {
        const Real* p = parameters + row / items.rows * P;
        Real *h = activations.data(), *grad = other.data();
        K::read(x + row * ins * n + at, ins, n, used, h);
        K::read(cotangent + row * outs * n + at, outs, n, used, delta.data());
        if (of_group) {
          of_group->collect(h, delta.data(), found, grad);
        } else {
          K::forward_block(net, p, h);
          grad = K::backward_block(net, p, h, h, true, delta.data(), other.data(), sums.data());
        }
        K::write(grad, ins, n, used, grad_x + row * ins * n + at);
      });
      if (!of_group) fold(sums, P, found);
    };
  });
  items.for_groups([&](int64_t group) {
    Real* total = grad_parameters + group * P;
    if (!segments[group]) return items.add_up(group, partial, stride, P, total);
    std::vector<double> moments(segments[group]->moments());
    items.add_up(group, partial, stride, moments.size(), moments.data());
    segments[group]->gradient(moments.data(), total);
  });
}

// shape: groups, rows, n, threads, ins, hidden, outs
template <typename Real>
void cell(
    const int64_t* shape, const Real* x, const Real* h, const Real* c, const Real* parameters, Real* y,
    Real* h_next, Real* c_next) {
  using K = CellKernel<Real>;
  const typename K::Cell net{(int)shape[4], (int)shape[5], (int)shape[6]};
  const Items items(shape, K::BLOCK);
  const int64_t n = items.n, P = net.parameters(), wide = net.hidden * n;
  items.run([&] {
    return [&, b = typename K::CellBlock(net)](int64_t item) mutable {
      items.walk(item, K::BLOCK, [&](int64_t row, int64_t at, int used) {
        const int64_t state = row * wide + at;
        K::read(x + row * net.ins * n + at, net.ins, n, used, b.in.data());
        K::read(h + state, net.hidden, n, used, b.in.data() + net.ins * K::BLOCK);
        const auto before = K::rows_in(c + state, net.hidden, n, used, b.before);
        const auto after = K::rows_out(c_next + state, n, used, b.after);
        K::forward_cell(net, parameters + row / items.rows * P, b, before, after);
        K::write(b.y.data(), net.outs, n, used, y + row * net.outs * n + at);
        K::write(b.h.data(), net.hidden, n, used, h_next + state);
        if (used < K::BLOCK) K::write(b.after.data(), net.hidden, n, used, c_next + state);
      });
    };
  });
}

template <typename Real>
void cell_vjp(
    const int64_t* shape, const Real* x, const Real* h, const Real* c, const Real* parameters, const Real* dy,
    const Real* dh, const Real* dc, Real* grad_x, Real* grad_h, Real* grad_c, Real* grad_parameters) {
  using K = CellKernel<Real>;
  const typename K::Cell net{(int)shape[4], (int)shape[5], (int)shape[6]};
  const Items items(shape, K::BLOCK);
  const int64_t n = items.n, P = net.parameters(), wide = net.hidden * n;
  std::vector<double> partial(items.groups * items.each_group * P);
  items.run([&] {
    std::vector<Real> in(net.joined() * K::BLOCK), cut(net.hidden * K::BLOCK), out(net.outs * K::BLOCK);
    return [&, b = typename K::CellBlock(net), din = in, cut_h = cut, cut_c = cut, to_y = out,
            sums = std::vector<Real>(P * K::WIDTH)](int64_t item) mutable {
      std::fill(sums.begin(), sums.end(), Real(0));
      items.walk(item, K::BLOCK, [&](int64_t row, int64_t at, int used) {
        const Real* p = parameters + row / items.rows * P;
        const int64_t state = row * wide + at;
        K::read(x + row * net.ins * n + at, net.ins, n, used, b.in.data());
        K::read(h + state, net.hidden, n, used, b.in.data() + net.ins * K::BLOCK);
        const auto before = K::rows_in(c + state, net.hidden, n, used, b.before);
        K::forward_cell(net, p, b, before, {b.after.data(), K::BLOCK});
        K::read(dy + row * net.outs * n + at, net.outs, n, used, to_y.data());
        const auto to_h = K::rows_in(dh + state, net.hidden, n, used, cut_h);
        const auto to_c = K::rows_in(dc + state, net.hidden, n, used, cut_c);
        const auto to_before = K::rows_out(grad_c + state, n, used, b.after);
        K::backward_cell(net, p, b, before, to_y.data(), to_h, to_c, to_before, din.data(), sums.data());
        K::write(din.data(), net.ins, n, used, grad_x + row * net.ins * n + at);
        K::write(din.data() + net.ins * K::BLOCK, net.hidden, n, used, grad_h + state);
        if (used < K::BLOCK) K::write(b.after.data(), net.hidden, n, used, grad_c + state);
      });
      fold(sums, P, partial.data() + item * P);
    };
  });
  items.for_groups([&](int64_t group) { items.add_up(group, partial, P, P, grad_parameters + group * P); });
}

}  // namespace

#define ENTRY(NAME, REAL)                                                                                   \
  void network_##NAME(const int64_t* s, const REAL* x, const REAL* p, REAL* y) { network(s, x, p, y); }     \
  void network_vjp_##NAME(const int64_t* s, const REAL* x, const REAL* p, const REAL* d, REAL* gx, REAL* gp) { \
    network_vjp(s, x, p, d, gx, gp);                                                                        \
  }                                                                                                         \
  void cell_##NAME(                                                                                         \
      const int64_t* s, const REAL* x, const REAL* h, const REAL* c, const REAL* p, REAL* y, REAL* hn,      \
      REAL* cn) {                                                                                           \
    cell(s, x, h, c, p, y, hn, cn);                                                                         \
  }                                                                                                         \
  void cell_vjp_##NAME(                                                                                     \
      const int64_t* s, const REAL* x, const REAL* h, const REAL* c, const REAL* p, const REAL* dy,         \
      const REAL* dh, const REAL* dc, REAL* gx, REAL* gh, REAL* gc, REAL* gp) {                             \
    cell_vjp(s, x, h, c, p, dy, dh, dc, gx, gh, gc, gp);                                                    \
  }

extern "C" {
ENTRY(float, float)
ENTRY(double, double)
}

#include "direct_calls.h"
