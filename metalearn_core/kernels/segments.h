// A network of ReLUs that reads one number is a straight line between kinks. It has few of them: about as many
// as neurons (Hanin and Rolnick, 2019, "Complexity of linear regions in deep networks"), where coordinates
// come in thousands. So it is evaluated once for each segment; a coordinate has only to find its own.
//
// On a segment with one end at e, and the slopes u of every layer's input h: h(g) = h(e) + (g - e) u, and the
// cotangents of the layers above do not depend on g. The gradient of a weight, the sum over coordinates of
// delta h(g)^T, is therefore that of two moments of the cotangents d: sum d with h(e), sum d (g - e) with u.
//
// Of two ends e is the one nearer to 0, here and wherever something is read off a line: what small numbers
// give is exact beside what large ones do. At 0 the derivative is what torch takes it for; a number that is
// just another kink has that of one side.

template <typename Real>
class Segments {
  using K = NetworkKernel<Real>;
  using Vec = typename K::Vec;
  using Network = typename K::Network;

 public:
  static bool apply(const Network& net, int64_t coordinates) {
    return net.activation == RELU && net.layers > 1 && net.widths[0] == 1 && net.parameters() >= SMALLEST &&
           coordinates >= FEWEST;
  }

  // Of the numbers x. There are none where segments are many, or where something is not finite.
  Segments(const Network& network, const Real* parameters, const Real* x, int64_t coordinates)
      : net(network), outs(network.widths[network.layers]), p(parameters) {
    if (find(x, coordinates, std::min<int64_t>(MOST, coordinates / 16)) && evaluate()) count = knots.size();
  }

  bool found() const { return count > 0; }

  // the outputs of a block of numbers
  void values(const Real* block, Real* y) const {
    int where[K::BLOCK];
    locate(block, where);
    for (int o = 0; o < outs; ++o) {
      for (int at = 0; at < K::BLOCK; ++at) {
        const int s = where[at];
        y[o * K::BLOCK + at] = value[o * count + s] + slope[o * count + s] * (block[at] - ends[s]);
      }
    }
  }

  int64_t moments() const { return 2 * outs * count; }

  // adds a block's moments, and gives the cotangents of its numbers
  void collect(const Real* block, const Real* cotangent, double* moment, Real* grad) const {
    int where[K::BLOCK];
    locate(block, where);
    std::fill(grad, grad + K::BLOCK, Real(0));
    for (int o = 0; o < outs; ++o) {
      double *plain = moment + 2 * o * count, *moved = plain + count;
      for (int at = 0; at < K::BLOCK; ++at) {
        const int s = where[at];
        const Real d = cotangent[o * K::BLOCK + at];
        plain[s] += d, moved[s] += d * (block[at] - ends[s]);
        grad[at] += d * slope[o * count + s];
      }
    }
  }

  // the gradient of the parameters, from moments
  void gradient(const double* moment, Real* total) const {
    std::vector<Real> sums(net.parameters() * K::WIDTH), delta(net.widest() * K::BLOCK), other(delta);
    Lines block(net);
    for (int first = 0; first < count; first += K::BLOCK) {
      const int used = lay(first, block);
      for (int which = 0; which < 2; ++which) {
        std::fill(delta.begin(), delta.end(), Real(0));
        for (int o = 0; o < outs; ++o) {
          const double* from = moment + (2 * o + which) * count + first;
          std::copy(from, from + used, delta.data() + o * K::BLOCK);
        }
        K::backward_block(net, p, block.on.data(), (which ? block.u : block.h).data(), !which, delta.data(),
                          other.data(), sums.data());
      }
    }
    std::vector<double> folded(net.parameters());
    fold(sums, net.parameters(), folded.data());
    std::copy(folded.begin(), folded.end(), total);
  }

 private:
  // below these, and above so many segments, evaluating each coordinate is as fast
  static constexpr int64_t FEWEST = 1024, SMALLEST = 200, MOST = 128;

  // of a block of segments: activations in their middles, which tell what is on; h(e); u
  struct Lines {
    std::vector<Real> on, h, u;
    explicit Lines(const Network& net) : on(net.features() * K::BLOCK), h(on), u(on) {}
  };

  // one vector after the other, the last one filled up with 0
  template <typename Each>
  static void scan(const Real* x, int64_t size, Each each) {
    int64_t at = 0;
    for (; at + K::WIDTH <= size; at += K::WIDTH) each(K::load(x + at));
    each(Vec::loadu(x + at, size - at));
  }

  bool find(const Real* x, int64_t coordinates, int64_t most) {
    Vec low(Real(0)), high(Real(0));
    scan(x, coordinates, [&](const Vec& v) { low = at::vec::minimum(low, v), high = at::vec::maximum(high, v); });
    Real lows[K::WIDTH], highs[K::WIDTH];
    low.store(lows), high.store(highs);
    if (!finite(lows, K::WIDTH) || !finite(highs, K::WIDTH) || !finite(p, net.parameters())) return false;
    // 0 is a knot: biases begin at 0, and so do many gradients
    if (const Real least = *std::min_element(lows, lows + K::WIDTH); least < 0) knots.push_back(least);
    knots.push_back(Real(0));
    if (const Real largest = *std::max_element(highs, highs + K::WIDTH); largest > 0) knots.push_back(largest);
    return bend(most);
  }

  // whether all are, and may be subtracted
  static bool finite(const Real* x, int64_t size) {
    const Vec large(std::numeric_limits<Real>::max() / 4);
    Vec within = large == large;
    scan(x, size, [&](const Vec& v) { within = within & (v.abs() < large); });
    return (within & Vec(Real(1))).zero_mask() == 0;
  }

  // Adds the kinks, layer after layer: where a unit's input, a line between two knots, changes its sign.
  bool bend(int64_t most) {
    std::vector<Real> h(parts(knots.size()) * K::BLOCK), z;
    std::copy(knots.begin(), knots.end(), h.begin());
    const Real* w = p;
    for (int l = 0; l + 1 < net.layers; ++l) {
      const int ins = net.widths[l], wide = net.widths[l + 1], blocks = parts(knots.size());
      z.resize((blocks + 1) * wide * K::BLOCK);  // a vector after the last knot is read, and not used
      for (int part = 0; part < blocks; ++part) {
        K::affine(w, ins, 1, ins, wide, w + ins * wide, h.data() + part * ins * K::BLOCK,
                  z.data() + part * wide * K::BLOCK);
      }
      if (!finite(z.data(), blocks * wide * K::BLOCK)) return false;
      std::vector<Crossing> crossings;
      if (!cross(z.data(), wide, most - (int64_t)knots.size(), crossings)) return false;
      insert(crossings, z.data(), wide, h);
      w += (ins + 1) * wide;
    }
    return true;
  }

  // between the knots `left` and the next: a part of the way from that which is nearer to 0
  struct Crossing {
    int left;
    Real part;
  };

  int nearer(int left) const { return knots[left] < 0 ? left + 1 : left; }
  int farther(int left) const { return knots[left] < 0 ? left : left + 1; }

  // where a unit's value is, which stands in blocks of knots
  static int64_t place(int wide, int knot) { return int64_t(knot / K::BLOCK) * wide * K::BLOCK + knot % K::BLOCK; }

  // in the order of what is crossed; false where there are more than `most`
  bool cross(const Real* z, int wide, int64_t most, std::vector<Crossing>& found) const {
    const int last = knots.size() - 1;
    for (int first = 0; first < last; first += K::WIDTH) {
      for (int o = 0; o < wide; ++o) {
        const Real* from = z + place(wide, first) + o * K::BLOCK;
        // the next block's first knot does not stand beside this one's last
        Real beside[K::WIDTH + 1];
        if ((first + K::WIDTH) % K::BLOCK == 0) {
          std::copy(from, from + K::WIDTH, beside);
          beside[K::WIDTH] = z[place(wide, first + K::WIDTH) + o * K::BLOCK];
          from = beside;
        }
        const Vec zero(Real(0)), turns = (K::load(from) < zero) ^ (K::load(from + 1) < zero);
        for (unsigned lanes = ~(turns & Vec(Real(1))).zero_mask() & ((1u << K::WIDTH) - 1); lanes; lanes &= lanes - 1) {
          const int lane = __builtin_ctz(lanes), left = first + lane;
          if (left >= last || from[lane] == 0 || from[lane + 1] == 0) continue;
          const Real near = from[nearer(left) - first], far = from[farther(left) - first];
          found.push_back({left, near / (near - far)});
        }
      }
      if ((int64_t)found.size() > most) return false;
    }
    std::sort(found.begin(), found.end(), [this](const Crossing& a, const Crossing& b) {
      if (a.left != b.left) return a.left < b.left;
      return knots[a.left] < 0 ? a.part > b.part : a.part < b.part;
    });
    return true;
  }

  // Crossings become knots; h: what the layer, z before its activation, puts out at all of them.
  void insert(const std::vector<Crossing>& crossings, const Real* z, int wide, std::vector<Real>& h) {
    std::vector<Real> next;
    h.assign(parts(knots.size() + crossings.size()) * wide * K::BLOCK, Real(0));
    const auto add = [&](int near, int far, Real part) {
      const Real *from = z + place(wide, near), *to = z + place(wide, far);
      Real* out = h.data() + place(wide, next.size());
      for (int at = 0; at < wide * K::BLOCK; at += K::BLOCK) {
        out[at] = std::max(from[at] + part * (to[at] - from[at]), Real(0));
      }
      next.push_back(knots[near] + part * (knots[far] - knots[near]));
    };
    auto crossing = crossings.begin();
    for (int k = 0; k < (int)knots.size(); ++k) {
      add(k, k, Real(0));
      for (; crossing != crossings.end() && crossing->left == k; ++crossing) add(nearer(k), farther(k), crossing->part);
    }
    knots.swap(next);
  }

  static int parts(int64_t size) { return (size + K::BLOCK - 1) / K::BLOCK; }

  // The lines of a block of segments, from segment `first` on; how many there are. Segment k is from knot k to the
  // next; the last one is 0 itself.
  int lay(int first, Lines& block) const {
    const int size = knots.size(), used = std::min<int>(K::BLOCK, size - first);
    std::fill(block.on.begin(), block.on.begin() + K::BLOCK, Real(0));
    std::fill(block.h.begin(), block.h.begin() + K::BLOCK, Real(0));
    std::fill(block.u.begin(), block.u.begin() + K::BLOCK, Real(1));
    for (int k = first; k < std::min(first + used, size - 1); ++k) {
      block.on[k - first] = knots[k] + (knots[k + 1] - knots[k]) / 2;
      block.h[k - first] = knots[nearer(k)];
    }
    K::forward_block(net, p, block.on.data());
    K::linear_block(net, p, block.on.data(), true, block.h.data());
    K::linear_block(net, p, block.on.data(), false, block.u.data());
    return used;
  }

  // what values and cotangents need; false where a line is not finite
  bool evaluate() {
    const int size = knots.size();
    const int64_t output = (net.features() - outs) * K::BLOCK;
    value.resize(outs * size), slope.resize(outs * size), ends.resize(size);
    Lines block(net);
    for (int first = 0; first < size; first += K::BLOCK) {
      const int used = lay(first, block);
      if (!finite(block.h.data(), block.h.size()) || !finite(block.u.data(), block.u.size())) return false;
      std::copy(block.h.begin(), block.h.begin() + used, ends.begin() + first);
      K::write(block.h.data() + output, outs, size, used, value.data() + first);
      K::write(block.u.data() + output, outs, size, used, slope.data() + first);
    }
    return true;
  }

  // the segment that each number of a block is in
  void locate(const Real* block, int* where) const {
    const Vec one(Real(1));
    Vec x[K::VECTORS], passed[K::VECTORS];
    for (int v = 0; v < K::VECTORS; ++v) x[v] = K::load(block + v * K::WIDTH), passed[v] = Vec(Real(0));
    for (int k = 1; k + 1 < count; ++k) {
      const Vec knot(knots[k]);
      for (int v = 0; v < K::VECTORS; ++v) passed[v] = passed[v] + ((x[v] > knot) & one);
    }
    Real index[K::BLOCK];
    for (int v = 0; v < K::VECTORS; ++v) {
      Vec::blendv(passed[v], Vec(Real(count - 1)), x[v] == Vec(Real(0))).store(index + v * K::WIDTH);
    }
    for (int at = 0; at < K::BLOCK; ++at) where[at] = index[at];
  }

  const Network net;
  const int outs;
  const Real* const p;
  int count = 0;
  std::vector<Real> knots, ends, value, slope;
};
