// The networks as compiled programs call them: from C++, without Python and torch's table of operators between.
//
// Rows are long, or there is one: what lays short rows end to end is in `operators.py`.

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

namespace at {
int get_num_threads();
}

namespace {

void require(AOTITorchError code) {
  if (code != 0) throw 1;
}

AtenTensorHandle empty(const std::vector<int64_t>& sizes, int32_t dtype) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * sizes[i];
  AtenTensorHandle made = nullptr;
  require(aoti_torch_empty_strided(
      sizes.size(), sizes.data(), strides.data(), dtype, aoti_torch_device_type_cpu(), 0, &made));
  return made;
}

// A tensor's sizes and its numbers, one after the other; a copy where they lie otherwise
struct Tensor {
  AtenTensorHandle handle, copied = nullptr;
  std::vector<int64_t> sizes;
  int32_t dtype = 0;

  explicit Tensor(AtenTensorHandle of) : handle(of) {
    int64_t axes = 0, *found = nullptr;
    bool contiguous = false;
    require(aoti_torch_get_dim(of, &axes));
    require(aoti_torch_get_sizes(of, &found));
    require(aoti_torch_get_dtype(of, &dtype));
    require(aoti_torch_is_contiguous(of, &contiguous));
    sizes.assign(found, found + axes);
    if (!contiguous) {
      handle = copied = empty(sizes, dtype);
      require(aoti_torch_copy_(copied, of, 0));
    }
  }
  Tensor(const Tensor&) = delete;
  ~Tensor() {
    if (copied != nullptr) aoti_torch_delete_tensor_object(copied);
  }

  bool is_float() const { return dtype == aoti_torch_dtype_float32(); }
  AtenTensorHandle like() const { return empty(sizes, dtype); }
  AtenTensorHandle with_features(int64_t count) const {
    return empty({sizes[0], sizes[1], count, sizes[3]}, dtype);
  }
  std::vector<int64_t> shape(std::initializer_list<int64_t> rest) const {
    std::vector<int64_t> all{sizes[0], sizes[1], sizes[3], at::get_num_threads()};
    all.insert(all.end(), rest);
    return all;
  }
};

template <typename Real>
Real* numbers(AtenTensorHandle of) {
  void* data = nullptr;
  require(aoti_torch_get_data_ptr(of, &data));
  return static_cast<Real*>(data);
}

template <typename Real>
const Real* numbers(const Tensor& of) {
  return numbers<Real>(of.handle);
}

// 0, or 1 where something failed, which a program reports
template <typename Function>
AOTITorchError reported(Function function) {
  try {
    function();
    return 0;
  } catch (...) {
    return 1;
  }
}

}  // namespace

// `call(of)` with `of` a zero of the tensors' type
#define IN_TYPE_OF(TENSOR, CALL)    \
  if ((TENSOR).is_float()) {        \
    using Real = float;             \
    CALL;                           \
  } else {                          \
    using Real = double;            \
    CALL;                           \
  }

extern "C" {

AOTITorchError aoti_torch_cpu_network(
    AtenTensorHandle x_, AtenTensorHandle p_, const int64_t* widths, int64_t count, int64_t activation,
    AtenTensorHandle* y) {
  return reported([&] {
    const Tensor x(x_), p(p_);
    auto s = x.shape({activation, count - 1});
    s.insert(s.end(), widths, widths + count);
    *y = x.with_features(widths[count - 1]);
    IN_TYPE_OF(x, network(s.data(), numbers<Real>(x), numbers<Real>(p), numbers<Real>(*y)))
  });
}

AOTITorchError aoti_torch_cpu_network_vjp(
    AtenTensorHandle x_, AtenTensorHandle p_, AtenTensorHandle d_, const int64_t* widths, int64_t count,
    int64_t activation, AtenTensorHandle* gx, AtenTensorHandle* gp) {
  return reported([&] {
    const Tensor x(x_), p(p_), d(d_);
    auto s = x.shape({activation, count - 1});
    s.insert(s.end(), widths, widths + count);
    *gx = x.like(), *gp = p.like();
    IN_TYPE_OF(
        x, network_vjp(
               s.data(), numbers<Real>(x), numbers<Real>(p), numbers<Real>(d), numbers<Real>(*gx),
               numbers<Real>(*gp)))
  });
}

AOTITorchError aoti_torch_cpu_cell(
    AtenTensorHandle x_, AtenTensorHandle h_, AtenTensorHandle c_, AtenTensorHandle p_, int64_t outputs,
    AtenTensorHandle* y, AtenTensorHandle* hn, AtenTensorHandle* cn) {
  return reported([&] {
    const Tensor x(x_), h(h_), c(c_), p(p_);
    const auto s = x.shape({x.sizes[2], h.sizes[2], outputs});
    *y = x.with_features(outputs), *hn = h.like(), *cn = c.like();
    IN_TYPE_OF(
        x, cell(
               s.data(), numbers<Real>(x), numbers<Real>(h), numbers<Real>(c), numbers<Real>(p),
               numbers<Real>(*y), numbers<Real>(*hn), numbers<Real>(*cn)))
  });
}

AOTITorchError aoti_torch_cpu_cell_vjp(
    AtenTensorHandle x_, AtenTensorHandle h_, AtenTensorHandle c_, AtenTensorHandle p_, AtenTensorHandle dy_,
    AtenTensorHandle dh_, AtenTensorHandle dc_, AtenTensorHandle* gx, AtenTensorHandle* gh, AtenTensorHandle* gc,
    AtenTensorHandle* gp) {
  return reported([&] {
    const Tensor x(x_), h(h_), c(c_), p(p_), dy(dy_), dh(dh_), dc(dc_);
    const auto s = x.shape({x.sizes[2], h.sizes[2], dy.sizes[2]});
    *gx = x.like(), *gh = h.like(), *gc = c.like(), *gp = p.like();
    IN_TYPE_OF(
        x, cell_vjp(
               s.data(), numbers<Real>(x), numbers<Real>(h), numbers<Real>(c), numbers<Real>(p),
               numbers<Real>(dy), numbers<Real>(dh), numbers<Real>(dc), numbers<Real>(*gx), numbers<Real>(*gh),
               numbers<Real>(*gc), numbers<Real>(*gp)))
  });
}
}
