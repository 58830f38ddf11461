// Registers the extension; conversion only.
#include "call/dispatcher.h"
#include "call/dispatcher_type.h"
#include "call/entrance.h"
#include "call/entries.h"
#include "call/frame_gate.h"
#include "call/gates.h"
#include "call/missed.h"
#include "call/state.h"
#include "call/target.h"
#include "check/checker.h"
#include "check/global_state.h"
#include "check/outlive.h"
#include "check/profile.h"
#include "check/tensor.h"
#include "cpython/watch.h"
#include "program/rows.h"
#include "witness/attribute_hooks.h"
#include "witness/witness.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <iterator>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

namespace py = pybind11;

namespace unified_guards {

namespace {

using TorchFunctionTLS = at::impl::PythonTorchFunctionTLS;

PyObject* visibility_probe = nullptr;  // see set_visibility_probe

constexpr const char* kShapeOpNames[] = {
#define UG_NAME(name) #name,
    UG_SHAPE_OPS(UG_NAME)
#undef UG_NAME
};

constexpr const char* kFactKinds[] = {
#define UG_NAME(name, text) text,
    UG_FACT_KINDS(UG_NAME)
#undef UG_NAME
};

constexpr const char* kRebuildNames[] = {
#define UG_NAME(name) #name,
    UG_REBUILD(UG_NAME)
#undef UG_NAME
};

// The number of each name, by its place.
template <size_t n>
py::dict numbered(const char* const (&names)[n]) {
  py::dict numbers;
  for (size_t i = 0; i < n; i++) numbers[names[i]] = i;
  return numbers;
}

// The number of each operation, by name.
py::dict op_numbers() {
  py::dict numbers;
  for (size_t op = 0; op < kOps; op++) numbers[kOpTraits[op].name] = op;
  return numbers;
}

// What the table of operations says of each, by name.
py::dict op_table() {
  constexpr const char* kUserCode[] = {"never", "by object", "mostly", "callback"};
  py::dict table;
  for (size_t op = 0; op < kOps; op++) {
    const OpTraits& traits = kOpTraits[op];
    py::dict row;
    row["is_accessor"] = is_accessor(static_cast<Op>(op));
    row["is_indexed"] = traits.arg == Arg::kIndex;
    row["user_code"] = kUserCode[static_cast<size_t>(traits.user_code)];
    row["can_be_asked_first"] = traits.order == Order::kAny;
    row["operands"] = traits.operands;
    table[traits.name] = row;
  }
  return table;
}

std::shared_ptr<Checker> make_checker(const py::list& rows, const py::object& observer, bool witness, double share) {
  auto checker = std::make_shared<Checker>(program_of(rows.ptr()));
  if (witness) checker->keep_witnesses();
  if (!observer.is_none()) checker->observer = observer.inc_ref().ptr();
  checker->share.set(share);
  return checker;
}

void ask_first(Checker& checker, const py::list& rows, int64_t first_row) {
  checker.ask_first(std::make_unique<Discriminator>(program_of(rows.ptr()), first_row));
}

c10::DispatchKeySet raw_keys(uint64_t keys) { return {c10::DispatchKeySet::RAW, keys}; }

// A raw key set with what a state includes and excludes: (included, excluded, whether Python's keys show), or None for
// that of this thread.
uint64_t apply_dispatch_state(uint64_t keys, const std::optional<std::tuple<uint64_t, uint64_t, bool>>& state) {
  if (!state) return DispatchState().apply(raw_keys(keys));
  const auto [included, excluded, shows] = *state;
  return DispatchState(raw_keys(included), raw_keys(excluded), shows).apply(raw_keys(keys));
}

// What a tensor guard made in a state would expect of `tensor`, as far as Python cannot read it exactly: dispatch keys,
// dtype, device index, requires_grad. `keys` is the raw key set to use instead of the tensor's own, or None.
py::tuple tensor_facts(py::handle tensor, const std::optional<uint64_t>& keys,
                       const std::optional<std::tuple<uint64_t, uint64_t, bool>>& state) {
  if (!is_tensor(tensor.ptr())) throw py::type_error("expected a torch.Tensor");
  const at::Tensor& value = tensor_of(tensor.ptr());
  const uint64_t found = keys.value_or(value.unsafeGetTensorImpl()->key_set().raw_repr());
  return py::make_tuple(apply_dispatch_state(found, state), static_cast<int>(c10::typeMetaToScalarType(value.dtype())),
                        static_cast<int>(value.device().index()), value.requires_grad());
}

// The fields of a tensor as they stand in memory; None for those that must not be read there (see InPlace).
py::dict read_in_place(py::handle tensor) {
  if (!is_tensor(tensor.ptr())) throw py::type_error("expected a torch.Tensor");
  using words::Peek;
  const c10::TensorImpl& implementation = *tensor_of(tensor.ptr()).unsafeGetTensorImpl();
  const InPlace may = reads_in_place(implementation);
  const c10::impl::SizesAndStrides& dims = Peek::dims(implementation);
  const torch::autograd::AutogradMeta* autograd = autograd_of(implementation.autograd_meta());
  const auto shown = [](bool shows, auto read) { return shows ? py::object(read()) : py::none(); };
  const auto numbers = [&](const int64_t* first) {
    return py::tuple(py::cast(std::vector(first, first + dims.size())));
  };
  py::dict fields;
  fields["keys"] = shown(may.keys, [&] { return py::int_(Peek::keys(implementation)); });
  fields["dtype"] =
      shown(may.dtype, [&] { return py::int_(static_cast<int>(c10::typeMetaToScalarType(implementation.dtype()))); });
  fields["device"] = shown(may.device, [&] { return py::str(Peek::device(implementation)->str()); });
  fields["size"] = shown(may.dims, [&] { return numbers(dims.sizes_data()); });
  fields["stride"] = shown(may.dims, [&] { return numbers(dims.strides_data()); });
  fields["storage_offset"] = shown(may.dims, [&] { return py::int_(Peek::offset(implementation)); });
  fields["requires_grad"] = shown(
      may.gradient, [&] { return py::bool_(autograd != nullptr && (autograd->requires_grad_ || autograd->grad_fn_)); });
  return fields;
}

// Keeps what make() returns, called in the dispatch state in which the probe will be asked: torch's guards remember
// the state that they were made in.
void set_visibility_probe(const py::function& make) {
  c10::impl::ForceDispatchKeyGuard no_modes(c10::DispatchKeySet{}, c10::DispatchKeySet{});
  PyObject* probe = make().release().ptr();
  Py_XSETREF(visibility_probe, probe);
}

py::object object_at(uint64_t address) {
  return py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(address));
}

py::dict moved_facts() {
  py::dict moved;
  for (size_t kind = 0; kind < std::size(kFactKinds); kind++) moved[kFactKinds[kind]] = facts_moved.of[kind];
  return moved;
}

py::object witness_of(const Checker& checker) {
  const Witnesses* all = checker.witnesses();
  if (all == nullptr) return py::none();
  py::dict found;
  found["roots"] = all->roots();
  found["facts"] = all->facts();
  found["tensors"] = all->tensors();
  found["live"] = all->live();
  found["live_rows"] = all->live_rows();
  found["fact_rows"] = all->fact_rows();
  py::list kinds;
  for (const FactKind kind : all->fact_kinds()) kinds.append(kFactKinds[static_cast<size_t>(kind)]);
  found["fact_kinds"] = kinds;
  found["nbytes"] = all->bytes();
  found["held"] = all->counts.held;
  found["repaired"] = all->counts.repaired;
  found["recorded"] = all->counts.recorded;
  return found;
}

py::tuple costs_of(Checker& checker, const py::dict& locals, uint32_t passes) {
  const Costs costs = profile(checker, locals.ptr(), passes);
  py::list rows;
  for (const Costs::Row& row : costs.rows) rows.append(py::make_tuple(row.row, row.ns));
  return py::make_tuple(costs.check_ns, costs.exact_ns, rows);
}

py::tuple as_tuple(const Counts& counts) {
  return py::make_tuple(counts.checks(), counts.hits, counts.misses, counts.python_callbacks);
}

}  // namespace

// Asking a guard of torch's own is the only way to read this thread-local from outside of libtorch_python. The probe
// expects an empty key set and is shown {Python}: it passes exactly when Python keys are hidden. Its answer must not
// depend on what else this thread includes or excludes.
bool python_keys_are_visible() {
  if (visibility_probe == nullptr) return true;
  c10::impl::ForceDispatchKeyGuard no_modes(c10::DispatchKeySet{}, c10::DispatchKeySet{});
  PyObject* hidden = PyObject_CallNoArgs(visibility_probe);
  if (hidden == nullptr) {
    PyErr_Clear();
    return true;
  }
  Py_DECREF(hidden);
  return hidden != Py_True;
}

namespace {

py::object callable_of(std::shared_ptr<Checker> self) {
  PyObject* function = make_callable(std::move(self));
  if (function == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

// Keeps alive what code of a user's in a guard may drop: the checker (`self`), and what torch's lookup walks
// (`running`).
bool check(std::shared_ptr<Checker> self, const py::dict& locals) {
  const Running running(locals.ptr());
  return self->check(locals.ptr());
}

bool check_exactly(std::shared_ptr<Checker> self, const py::dict& locals) {
  const Running running(locals.ptr());
  return self->check_exactly(locals.ptr());
}

py::object last_failure(const Checker& self) {
  const int64_t row = self.last_failure();
  return row < 0 ? py::object(py::none()) : py::int_(row);
}

void bind_checker(py::module_& m) {
  py::class_<Checker, std::shared_ptr<Checker>>(m, "Checker", "A lowered GuardSet and its callable.")
      .def(py::init(&make_checker), py::arg("rows"), py::arg("observer") = py::none(), py::arg("witness") = true,
           py::arg("share") = 1.0, "From rows of lower/rows.py. `observer` is told of that share of all checks.")
      .def("callable", &callable_of, "What Dynamo's lookup calls: the verdict on a dict of locals.")
      .def("check", &check, py::arg("locals"), "Whether all guards hold on these locals.")
      .def("exact", &check_exactly, py::arg("locals"), "The same, by the exact tier alone.")
      .def("ask_first", &ask_first, py::arg("rows"), py::arg("first_row"),
           "Has the one guard of these rows asked before all others. Its rows are numbered from `first_row`.")
      .def("profile", &costs_of, py::arg("locals"), py::arg("passes"),
           "The least of some passes, in nanoseconds: a check, one by the exact tier, and each (row, alone).")
      .def(
          "call_before", [](Checker& self, py::object call) { self.before = call.release().ptr(); }, py::arg("call"),
          "Has call(locals) called ahead of each check that the observer is told of. Once for a checker.")
      .def_readonly("last_ns", &Checker::last_ns, "How long the last check took that the observer was told of.")
      .def_property_readonly(
          "counts", [](const Checker& self) { return as_tuple(self.counts()); },
          "(checks, hits, misses, Python callbacks) so far.")
      .def_property_readonly("witness", &witness_of,
                             "What is remembered, as a dict of numbers; None without a witness.")
      .def_property_readonly(
          "nbytes", [](const Checker& self) { return self.bytes(); }, "The memory that it takes.")
      .def_property_readonly(
          "length", [](const Checker& self) { return self.length(); }, "How many instructions there are.")
      .def_property_readonly("last_failure", &last_failure, "The row at which the last miss stopped, or None.");
}

// A new reference, or the error that is set.
py::object given(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

void learn_calls(const py::list& flags, const py::object& get_callback, const py::object& set_callback,
                 const py::object& set_frame_count, const py::object& generations, const py::tuple& global_hooks,
                 const py::object& optimized, const py::tuple& on_the_way, const py::object& undo_layers,
                 const py::object& code) {
  if (!learn_state(flags.ptr(), get_callback.ptr(), set_callback.ptr(), set_frame_count.ptr(), generations.ptr(),
                   undo_layers.ptr()) ||
      !learn_modules(global_hooks.ptr(), optimized.ptr(), on_the_way.ptr())) {
    throw py::error_already_set();
  }
  torchs_index = cpython::only_extra_of(code.ptr());
}

// (region, addresses) of a call that has gone torch's way; None where there is no such call.
py::object take_miss(const py::object& frame, const py::object& code) {
  PyObject* told = missed.take(frame.ptr(), code.ptr());
  return told == nullptr ? py::none() : py::reinterpret_steal<py::object>(told);
}

bool has_other_entries(const py::object& code, int64_t region, const std::vector<uintptr_t>& addresses) {
  Managers asked;
  for (const uintptr_t address : addresses) asked.push_back(reinterpret_cast<PyObject*>(address));
  const FoundEntries found = entries_of(code.ptr(), region);
  return found.why == Why::kNone && has_others(*found.entries, asked);
}

void bind_calls(py::module_& m) {
  m.attr("Dispatcher") = given(make_dispatcher_type());
  m.attr("Gate") = given(make_gate_type());
  m.attr("FrameGate") = given(make_frame_gate_type());
  m.attr("Entrance") = given(make_entrance_type());
  m.def(
      "show_call",
      [](const py::type& type, const py::function& function) {
        if (!show_call(type.ptr(), function.ptr())) throw py::error_already_set();
      },
      py::arg("type"), py::arg("function"), "Gives a class a __call__ that is read, and not called (call/entrance.h).");
  m.attr("module_gate") = given(make_module_gate());
  m.attr("LONG_WAY") = given(Py_XNewRef(long_way()));
  m.def("learn_calls", &learn_calls, py::arg("flags"), py::arg("get_callback"), py::arg("set_callback"),
        py::arg("set_frame_count"), py::arg("generations"), py::arg("global_hooks"), py::arg("optimized"),
        py::arg("on_the_way"), py::arg("undo_layers"), py::arg("code"),
        "What torch's wrapper of compiled functions looks at (call/state.h); `code` carries what torch keeps.");
  m.def(
      "learn_flag",
      [](const py::tuple& flag) {
        if (!learn_flag(flag.ptr())) throw py::error_already_set();
      },
      py::arg("flag"), "One more of the flags that learn_calls() is given.");
  m.def(
      "dispatch", [](bool on) { return std::exchange(State::now.is_on, on); }, py::arg("on"),
      "Whether calls may take the short way from now on. Gives what was said before.");
  m.def(
      "take_miss", &take_miss, py::arg("frame"), py::arg("code"),
      "Of a call that has gone torch's way in this frame because no entry fits: (region, the addresses of the entries "
      "that were asked). It is told only once; None where there is no such call.");
  m.def("has_other_entries", &has_other_entries, py::arg("code"), py::arg("region"), py::arg("addresses"),
        "Whether torch has other entries for the code than those that were asked.");
  m.def(
      "note_order", [](bool moves_hits) { State::now.moves_hits = moves_hits; }, py::arg("moves_hits"),
      "Whether torch asks the entry first that was hit last.");
  m.def(
      "note_hook", [](bool there_is_one) { State::now.is_hooked = there_is_one; }, py::arg("there_is_one"),
      "Whether a hook of torch's looks at every call.");
}

void bind_state(py::module_& m) {
  py::class_<StateGuard>(m, "GlobalState", "What decides what operators do, as it was when this was made.")
      .def(py::init([](const py::object& torchs) { return std::make_unique<StateGuard>(torchs.ptr()); }),
           py::arg("torchs") = py::none(), "`torchs` is torch's own guard on the same state, asked where there is one.")
      .def("check", &StateGuard::holds, "Whether it is the same now.")
      .def("__eq__", [](const StateGuard& self, const StateGuard& other) { return self.state() == other.state(); })
      .def("__hash__", [](const StateGuard& self) { return self.state().threads; });
  m.def(
      "torch_function_state", [] { return static_cast<int>(TorchFunctionTLS::get_disabled_state()); },
      "Whether torch functions are disabled on this thread, as torch's number.");
  m.def(
      "set_torch_function_state",
      [](int state) { TorchFunctionTLS::set_disabled_state(static_cast<at::impl::TorchFunctionDisabledState>(state)); },
      py::arg("state"), "Puts back what torch_function_state() gave.");
  m.def("apply_dispatch_state", &apply_dispatch_state, py::arg("keys"), py::arg("state") = py::none(),
        "A raw dispatch key set with the keys that a state, or else this thread, includes and excludes.");
  m.def("python_keys_are_visible", &python_keys_are_visible, "Whether guards see Python dispatch keys on this thread.");
  m.def("set_visibility_probe", &set_visibility_probe, py::arg("make"),
        "Keeps what make() returns: a guard of torch's that python_keys_are_visible() asks.");
}

void bind_counts(py::module_& m) {
  m.def("counts", [] { return as_tuple(total_counts); }, "(checks, hits, misses, Python callbacks) of all checkers.");
  m.def(
      "witness_counts",
      [] {
        const WitnessCounts& all = total_witness_counts;
        return py::make_tuple(all.held, all.repaired, all.recorded);
      },
      "How many checks of all checkers passed by facts alone, after a repair, and while all were recorded.");
  m.def("moved_facts", &moved_facts, "How often a fact of each kind was found to have moved, by any checker.");
}

void bind_tensors(py::module_& m) {
  m.def("tensor_facts", &tensor_facts, py::arg("tensor"), py::arg("keys"), py::arg("state") = py::none(),
        "(dispatch keys, dtype, device index, requires_grad) that a guard made now, or in a state, would expect.");
  m.def("read_in_place", &read_in_place, py::arg("tensor"),
        "The fields of a tensor as they stand in memory; None for those that must not be read there.");
  m.def(
      "asks_python", [](py::handle tensor) { return asks_python(*tensor_of(tensor.ptr()).unsafeGetTensorImpl()); },
      py::arg("tensor"), "Whether the metadata of a tensor may be computed in Python.");
}

void bind_interpreter(py::module_& m) {
  m.def(
      "has_version",
      [](const py::type& type) {
        return cpython::type_version_word(reinterpret_cast<PyTypeObject*>(type.ptr())) != nullptr;
      },
      py::arg("type"), "Whether the interpreter gives a class a version, by which it is known not to have changed.");
  m.def(
      "know_attribute_hook",
      [](py::handle code, const std::string& form, const std::vector<std::string>& names) {
        know_attribute_hook(code.ptr(), form, names);
      },
      py::arg("code"), py::arg("form"), py::arg("names"),
      "From now on, code that looks attributes up is known to do so in this form (dynamo/attribute_getters.py).");
  m.def(
      "knows_attribute_hook", [](py::handle code) { return knows_attribute_hook(code.ptr()); }, py::arg("code"),
      "Whether that was said of this code.");
  m.def(
      "outlive", [](py::handle object) { outlive(object.ptr()); }, py::arg("object"),
      "Keeps an object until the lookups that are running are over.");
  m.def(
      "outlive_what_code_carries", [](py::handle code) { return outlive_what_code_carries(code.ptr()); },
      py::arg("code"), "The same of what torch keeps with code objects, from now on; False where it is not known how.");
  m.def("dicts_are_versioned", &dicts_are_versioned, "Whether a word tells that a dict has changed.");
  m.def("object_at", &object_at, py::arg("address"), "The object at an address, which must be alive.");
}

}  // namespace

}  // namespace unified_guards

PYBIND11_MODULE(_C, m) {
  using namespace unified_guards;
  m.doc() = "The native checker of unified_guards.";
  cpython::self_test();
  if (!kPolicyBits.are_found()) throw std::runtime_error("the fields of torch's tensors are not where they should be");
  m.attr("TORCH_VERSION") = UG_TORCH_VERSION;
  m.attr("OPS") = op_numbers();
  m.attr("OP_TABLE") = op_table();
  m.attr("SHAPE_OPS") = numbered(kShapeOpNames);
  m.attr("REBUILD") = numbered(kRebuildNames);
  m.attr("DICT_SLOTS") = cpython::layouts_known;
  m.attr("DICT_TABLES") = cpython::tables_known;
  m.attr("TYPE_VERSIONS") = cpython::words_known;
  m.attr("MONITORS") = cpython::monitors_known;

  bind_checker(m);
  bind_calls(m);
  bind_state(m);
  bind_counts(m);
  bind_tensors(m);
  bind_interpreter(m);
}
