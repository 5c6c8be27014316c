// A network of ReLUs that reads one number is a straight line between kinks. It has few of them: about as many
// as neurons (Hanin and Rolnick, 2019, "Complexity of linear regions in deep networks"), where coordinates
// come in thousands. So it is evaluated once for each segment; a coordinate has only to find its own.
//
// On a segment with one end at e, and the slopes u of every layer's input h: h(g) = h(e) + (g - e) u, and the
// cotangents of the layers above do not depend on g. The gradient of a weight, the sum over coordinates of
// delta h(g)^T, is therefore that of two moments of the cotangents d: sum d with h(e), sum d (g - e) with u.
// e is the end that is nearer to 0, so that what small numbers give is exact beside what large ones give.

template <typename Real>
class Segments {
  using K = NetworkKernel<Real>;
  using Vec = typename K::Vec;
  using Network = typename K::Network;

 public:
  static bool apply(const Network& net, int64_t coordinates) {
    return net.activation == RELU && net.layers > 1 && net.widths[0] == 1 && coordinates >= FEWEST;
  }

  // of the numbers x; without success where they or the parameters are not finite, or segments are many
  Segments(const Network& network, const Real* parameters, const Real* x, int64_t coordinates)
      : net(network), outs(network.widths[network.layers]), p(parameters) {
    if (find(x, coordinates, std::min<int64_t>(MOST, coordinates / 4))) evaluate();
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
    for (int first = 0, part = 0; first < count; first += K::BLOCK, ++part) {
      const int64_t at = part * net.features() * K::BLOCK;
      const int used = std::min<int>(K::BLOCK, count - first);
      for (int which = 0; which < 2; ++which) {
        std::fill(delta.begin(), delta.end(), Real(0));
        for (int o = 0; o < outs; ++o) {
          const double* from = moment + (2 * o + which) * count + first;
          std::copy(from, from + used, delta.data() + o * K::BLOCK);
        }
        const Real* factors = (which ? slopes : lines).data() + at;
        K::backward_block(net, p, activations.data() + at, factors, !which, delta.data(), other.data(), sums.data());
      }
    }
    std::vector<double> folded(net.parameters());
    fold(sums, net.parameters(), folded.data());
    std::copy(folded.begin(), folded.end(), total);
  }

 private:
  static constexpr int64_t FEWEST = 512, MOST = 128;

  bool find(const Real* x, int64_t coordinates, int64_t most) {
    Vec low(Real(0)), high(Real(0)), finite(Real(0));
    const auto each = [&](const Vec& v) {
      low = at::vec::minimum(low, v), high = at::vec::maximum(high, v);
    };
    int64_t at = 0;
    for (; at + K::WIDTH <= coordinates; at += K::WIDTH) each(K::load(x + at));
    each(Vec::loadu(x + at, coordinates - at));
    for (at = 0; at + K::WIDTH <= net.parameters(); at += K::WIDTH) finite = finite + K::load(p + at) * Vec(Real(0));
    finite = finite + Vec::loadu(p + at, net.parameters() - at) * Vec(Real(0));
    Real lows[K::WIDTH], highs[K::WIDTH], zeros[K::WIDTH], sum = 0;
    low.store(lows), high.store(highs), finite.store(zeros);
    for (int l = 0; l < K::WIDTH; ++l) sum += (lows[l] + highs[l]) * Real(0) + zeros[l];
    if (sum != 0) return false;
    // 0 is a knot: biases begin at 0 and so do many gradients, and there a derivative is what torch takes it for
    knots.clear();
    if (const Real least = *std::min_element(lows, lows + K::WIDTH); least < 0) knots.push_back(least);
    knots.push_back(Real(0));
    if (const Real largest = *std::max_element(highs, highs + K::WIDTH); largest > 0) knots.push_back(largest);
    return bend(most);
  }

  // Adds the kinks, layer after layer: where a unit's input, a line between two knots, changes its sign.
  bool bend(int64_t most) {
    std::vector<Real> h(parts(knots.size()) * K::BLOCK), z;
    std::copy(knots.begin(), knots.end(), h.begin());
    const Real* w = p;
    for (int l = 0; l + 1 < net.layers; ++l) {
      const int ins = net.widths[l], wide = net.widths[l + 1], blocks = parts(knots.size());
      z.resize((blocks + 1) * wide * K::BLOCK);  // one more: it is looked at beyond the last knot
      for (int part = 0; part < blocks; ++part) {
        K::affine(w, ins, 1, ins, wide, w + ins * wide, h.data() + part * ins * K::BLOCK,
                  z.data() + part * wide * K::BLOCK);
      }
      std::vector<Crossing> crossings = crossed(z.data(), wide);
      if ((int64_t)(knots.size() + crossings.size()) > most) return false;
      insert(crossings, z.data(), wide, h);
      w += (ins + 1) * wide;
    }
    return true;
  }

  struct Crossing {
    int knot;         // before it
    Real part, rest;  // of the way to the next, behind and ahead
    bool operator<(const Crossing& other) const {
      return knot < other.knot || (knot == other.knot && part < other.part);
    }
  };

  // where a unit's value is, which stands in blocks of knots
  static int64_t place(int wide, int knot) { return int64_t(knot / K::BLOCK) * wide * K::BLOCK + knot % K::BLOCK; }

  std::vector<Crossing> crossed(const Real* z, int wide) const {
    std::vector<Crossing> found;
    const int last = knots.size() - 1;
    for (int first = 0; first < last; first += K::WIDTH) {
      for (int o = 0; o < wide; ++o) {
        const Real* from = z + place(wide, first) + o * K::BLOCK;
        // the next block's first knot does not stand beside this one's last
        Real beside[K::WIDTH + 1];
        const bool ends = (first + K::WIDTH) % K::BLOCK == 0;
        if (ends) {
          std::copy(from, from + K::WIDTH, beside);
          beside[K::WIDTH] = z[place(wide, first + K::WIDTH) + o * K::BLOCK];
          from = beside;
        }
        const Vec zero(Real(0)), turns = (K::load(from) < zero) ^ (K::load(from + 1) < zero);
        for (unsigned lanes = ~(turns & Vec(Real(1))).zero_mask() & ((1u << K::WIDTH) - 1); lanes; lanes &= lanes - 1) {
          const int lane = __builtin_ctz(lanes);
          const Real a = from[lane], b = from[lane + 1];
          if (first + lane < last && a != 0 && b != 0) found.push_back({first + lane, a / (a - b), b / (b - a)});
        }
      }
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  // Crossings become knots; h: what the layer, z before its activation, puts out at all of them.
  void insert(const std::vector<Crossing>& crossings, const Real* z, int wide, std::vector<Real>& h) {
    std::vector<Crossing> columns;
    std::vector<Real> next;
    auto crossing = crossings.begin();
    for (int k = 0; k < (int)knots.size(); ++k) {
      columns.push_back({k, Real(0), Real(1)}), next.push_back(knots[k]);
      for (; crossing != crossings.end() && crossing->knot == k; ++crossing) {
        columns.push_back(*crossing);
        // from the end that is nearer to 0: gradients are small beside the largest of them
        const Real gap = knots[k + 1] - knots[k];
        next.push_back(knots[k] < 0 ? knots[k + 1] - crossing->rest * gap : knots[k] + crossing->part * gap);
      }
    }
    knots.swap(next);
    h.resize(parts(knots.size()) * wide * K::BLOCK);
    for (size_t k = 0; k < columns.size(); ++k) {
      const Real *before = z + place(wide, columns[k].knot), *after = z + place(wide, columns[k].knot + 1);
      Real* to = h.data() + place(wide, k);
      const Real part = columns[k].part;
      for (int at = 0; at < wide * K::BLOCK; at += K::BLOCK) {
        to[at] = std::max(part > 0 ? before[at] + part * (after[at] - before[at]) : before[at], Real(0));
      }
    }
  }

  static int parts(int64_t size) { return (size + K::BLOCK - 1) / K::BLOCK; }

  // Every layer's input at each segment's end, and its slope: that of the units that are on in the middle of it.
  void evaluate() {
    count = knots.size();  // the last segment is 0 itself
    const int size = net.features() * K::BLOCK;
    activations.resize(parts(count) * size), lines.resize(parts(count) * size), slopes.resize(parts(count) * size);
    value.resize(outs * count), slope.resize(outs * count), ends.resize(count);
    for (int first = 0, part = 0; first < count; first += K::BLOCK, ++part) {
      const int used = std::min<int>(K::BLOCK, count - first);
      Real *h = activations.data() + part * size, *line = lines.data() + part * size, *u = slopes.data() + part * size;
      for (int k = first; k < first + used; ++k) {
        const bool point = k + 1 == count;
        ends[k] = line[k - first] = point ? Real(0) : knots[k] < 0 ? knots[k + 1] : knots[k];
        h[k - first] = point ? Real(0) : (knots[k] + knots[k + 1]) / 2;
      }
      std::fill(u, u + K::BLOCK, Real(1));
      K::forward_block(net, p, h);
      K::write(K::linear_block(net, p, h, true, line), outs, count, used, value.data() + first);
      K::write(K::linear_block(net, p, h, false, u), outs, count, used, slope.data() + first);
    }
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
  std::vector<Real> knots, ends, activations, lines, slopes, value, slope;
};
