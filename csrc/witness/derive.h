// From what is in memory to facts about it.
#pragma once

#include "witness/attribute_hooks.h"
#include "witness/facts.h"

#include <utility>
#include <vector>

namespace unified_guards {

// Where a function keeps what an accessor of functions finds.
inline cpython::Word field_word(Op op, PyObject* function) {
  auto* f = reinterpret_cast<PyFunctionObject*>(function);
  switch (op) {
    case Op::FUNC_DEFAULTS: return cpython::word_at(&f->func_defaults);
    case Op::FUNC_KWDEFAULTS: return cpython::word_at(&f->func_kwdefaults);
    case Op::FUNC_CODE: return cpython::word_at(&f->func_code);
    default: return cpython::word_at(&f->func_closure);
  }
}

// Finds what facts say that an instruction is as it is, without running code of a user's; what has none stays live.
//
// It evaluates what it covers on the way, so that record() and a live evaluation of the rest are together one check.
class Deriver {
 public:
  enum class Outcome { kDone, kFails, kOther };  // kOther: the shape of the facts is no longer what it was

  explicit Deriver(Program& program) : program_(program), registers_(program.size_.registers) {}

  // What the next calls are about.
  void about(Facts& facts, Evaluation& evaluation) {
    facts_ = &facts;
    evaluation_ = &evaluation;
    work_ = 0;
  }

  // All facts, from nothing.
  Outcome record(PyObject* locals);

  // One of the facts of this instruction does not hold: evaluates again what it says, and where an accessor now finds
  // something else, all below it. The facts are changed only when the outcome is kDone.
  Outcome repair(uint32_t at);

  // An anchor has another value.
  Outcome replace(uint32_t anchor, PyObject* value);

  Program& program() { return program_; }

  // How many instructions were looked at.
  size_t work() const { return work_; }

  // What an accessor finds below `base` without running code of a user's; null when that cannot be told.
  static PyObject* read(Instruction& i, PyObject* base);

 private:
  enum class State : uint8_t { kHidden, kSeen, kHeld };  // unknown; known now; known and vouched for by facts
  struct Register {
    PyObject* value = nullptr;
    State state = State::kHidden;
    uint8_t has = 0;  // which Needs facts were found for
  };
  struct Change {
    uint32_t at;
    Fact fact;
  };

  bool derive(uint32_t begin, uint32_t end);
  bool derive_accessor(uint32_t at);
  bool derive_guard(uint32_t at);
  bool hold(uint32_t at, PyObject* value, Standing standing);
  bool leave_live(uint32_t at, Register value);
  bool is_anchor(uint32_t at, PyObject* value) const;
  PyObject* edge(uint32_t at, const Register& base);
  PyObject* edge_of_attribute(Instruction& i, const Register& base);
  PyObject* edge_of_name(PyObject* object, PyObject* name, cpython::Slot& slot);
  PyObject* edge_of_class_name(PyObject* type, PyObject* of_metaclass);
  bool type_stays(PyObject* attribute);
  PyObject* edge_of_property(PyObject* object, PyObject* property);
  PyObject* edge_of_getter(PyObject* object, PyFunctionObject* getter, const AttributeHook& hook);
  PyObject* edge_of_all(PyObject* object, PyFunctionObject* getter, const AttributeHook& hook);
  PyObject* edge_of_function_attribute(PyObject* function, PyObject* name);
  PyObject* edge_of_member(PyObject* object, PyObject* descriptor);
  PyObject* edge_of_gradient(PyObject* tensor);
  PyObject* edge_of_weakref(PyObject* reference);
  uint8_t node(uint32_t at, PyObject* value, uint8_t needs);
  void keep(uint32_t at, PyObject* value);
  bool attribute_facts(PyObject* value);
  bool class_attribute_facts(PyTypeObject* type);
  bool hook_facts(PyObject* value);
  bool instance_facts(PyObject* value);
  bool covers(uint32_t at, const Register& base);
  bool covers_absence(PyObject* object, PyObject* name, const Register& base);
  bool covers_absence_in(PyObject* object, PyObject* getattr, PyObject* name);
  bool covers_marking(uint32_t at, PyObject* object, PyObject* name);
  bool covers_tensor(uint32_t at, PyObject* object);
  bool covers_ambient(const Instruction& i);
  bool refresh_children(uint32_t at);
  bool standing_is(uint32_t at, Standing standing);
  void settle_relations();

  void begin(uint32_t at);
  void emit(FactKind kind, cpython::Word word);
  void emit_type(PyObject* object);
  size_t emitted() const { return updating_ ? changes_.size() - change_from_ : facts_->facts.size() - from_; }
  void drop_emitted();
  bool end(uint32_t at);
  bool other() {
    outcome_ = Outcome::kOther;
    return false;
  }
  bool fails(uint32_t at, bool merged = false) {
    evaluation_->fail(at, merged);
    outcome_ = Outcome::kFails;
    return false;
  }

  void start_update();
  Outcome commit();

  Program& program_;
  Facts* facts_ = nullptr;
  Evaluation* evaluation_ = nullptr;
  std::vector<Register> registers_;
  Outcome outcome_ = Outcome::kDone;
  bool updating_ = false;
  bool follows_property_ = false;
  size_t work_ = 0;
  uint32_t current_ = 0;
  size_t from_ = 0, change_from_ = 0;
  std::vector<Change> changes_;
  std::vector<std::pair<uint32_t, PyObject*>> finds_;
  std::vector<std::pair<uint32_t, TensorFact>> tensor_changes_;
  std::vector<std::pair<uint32_t, PyObject*>> keeps_;
};

}  // namespace unified_guards
