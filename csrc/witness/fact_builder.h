// From what is in memory to facts about it: FactBuilder. Entry points: record(), repair(), replace().
//
// Here (fact_builder.cpp): the order in which facts are written, and how some of them are written anew. Which facts an
// accessor has is in accessor_facts.cpp and attribute_facts.cpp; which a guard has, in guard_facts.cpp.
//
// Everything is found by reading memory: nothing runs code of a user's, makes an object or drops the last reference to
// one.
#pragma once

#include "witness/attribute_hooks.h"
#include "witness/facts.h"

#include <utility>
#include <vector>

namespace unified_guards {

// Finds, for each instruction, words of memory such that its answer cannot change while they do not. Where there are no
// such words, the instruction is live: build_accessor() and build_guard() decide that.
//
// Instructions with facts are evaluated on the way. So record(), and then an evaluation of the live ones, are one
// check.
class FactBuilder {
 public:
  // kOther: the facts would be of other kinds, or of another number, than those that there are.
  enum class Outcome { kDone, kFails, kOther };

  explicit FactBuilder(Program& program)
      : program_(program),
        anchor_moves_(program.code.size()),
        dict_moves_(program.code.size()),
        registers_(program.size.registers) {}

  // Call first: the facts to write, and the evaluator to use.
  void bind(Facts& facts, Evaluation& evaluation) {
    facts_ = &facts;
    evaluation_ = &evaluation;
    work_ = 0;
    facts_->checks++;
  }

  // Writes all facts, from nothing.
  Outcome record(PyObject* locals);

  // A fact of this instruction, of that kind, does not hold. Evaluates the instruction again and, where an accessor now
  // finds another object, all instructions below it. The facts are changed only when the outcome is kDone. kOther also
  // when it is a dict whose version moves on every check: the next record() has facts on its entries.
  Outcome repair(uint32_t at, FactKind kind);

  // An anchor has another value: evaluates all instructions below it again, as repair() does. kOther also when this has
  // now happened kMostMoves times: from then on the accessor is no anchor.
  Outcome replace(uint32_t anchor, PyObject* value);

  Program& program() { return program_; }

  // How many instructions were looked at since bind().
  size_t work() const { return work_; }

  // What an accessor finds below `base` without running code of a user's, and without facts; null when that cannot be
  // told.
  static PyObject* peek(Instruction& i, PyObject* base);

 private:
  // What is known of a register: nothing, its value now, or its value together with facts under which it stays so.
  enum class Knows : uint8_t { kNothing, kValue, kFacts };
  struct Register {
    PyObject* value = nullptr;
    Knows state = Knows::kNothing;
    uint8_t has = 0;  // which Needs facts were found for; and the two below
  };
  // Beside the Needs: there are facts on the table of the dict itself, or of the instance dict, and none on its
  // version. What is read of that dict has facts of its own.
  static constexpr uint8_t kHasTable = 64, kHasInstanceTable = 128;
  struct Change {
    uint32_t at;
    Fact fact;
  };

  // Walking the program (fact_builder.cpp). False: outcome_ says why the walk ends.
  bool build(uint32_t begin, uint32_t end);
  bool build_accessor(uint32_t at);
  bool build_guard(uint32_t at);
  bool remember(uint32_t at, PyObject* value, Mode mode);
  bool leave_live(uint32_t at, Register value);
  bool is_anchor(uint32_t at, PyObject* value) const;
  bool refresh_children(uint32_t at);
  bool mode_is(uint32_t at, Mode mode);
  void decide_relations();

  // What an accessor finds, with facts that say so; null when there are none (accessor_facts.cpp).
  PyObject* read_accessor(uint32_t at, const Register& base);
  PyObject* read_item(Instruction& i, const Register& base);
  PyObject* read_dict_item(Instruction& i, const Register& base);
  PyObject* read_function_field(Op op, PyObject* object);
  PyObject* read_gradient(PyObject* tensor);
  PyObject* read_weakref(PyObject* reference);

  // The same of attributes (attribute_facts.cpp).
  PyObject* read_attribute(Instruction& i, const Register& base);
  PyObject* read_name(const Register& base, PyObject* name, cpython::Slot& slot);
  PyObject* read_class_name(PyObject* type, PyObject* of_metaclass);
  PyObject* read_property(const Register& base, PyObject* property);
  PyObject* read_getter(const Register& base, PyFunctionObject* getter, const AttributeHook& hook);
  PyObject* read_all_of(const Register& base, PyFunctionObject* getter, const AttributeHook& hook);
  PyObject* read_function_attribute(PyObject* function, PyObject* name);
  PyObject* read_member(PyObject* object, PyObject* descriptor);
  bool type_stays(PyObject* attribute);

  // Emits the facts about a value that the instructions below it need. Gives the Needs for which there are facts.
  uint8_t value_facts(uint32_t at, PyObject* value, uint8_t needs);
  void keep(uint32_t at, PyObject* value);
  uint8_t attribute_facts(PyObject* value);
  bool class_attribute_facts(PyTypeObject* type);
  bool hook_facts(PyObject* value);
  uint8_t instance_facts(PyObject* value);

  // Dicts that change on every call (dict_facts.cpp).
  bool is_on_table(PyObject* dict) const { return dict_moves_[current_] && cpython::dict_table(dict).shape != nullptr; }
  bool is_instance_on_table(PyObject* object, PyObject* dict) const {
    return cpython::plain_attribute_access(Py_TYPE(object)) && is_on_table(dict);
  }
  void table_facts(PyObject* dict);
  cpython::Found read_entry(PyObject* dict, PyObject* name);
  cpython::Found read_instance(const Register& base, PyObject* dict, PyObject* name, cpython::Slot& slot);
  cpython::Found read_instance(const Register& base, PyObject* dict, PyObject* name) {
    cpython::Slot nowhere = cpython::kNoSlot;
    return read_instance(base, dict, name, nowhere);
  }
  bool dict_keeps_moving(uint32_t at);

  // Whether facts, those of the base and those that are emitted here, keep the answer of a guard (guard_facts.cpp).
  bool guard_facts(uint32_t at, const Register& base);
  bool absence_facts(PyObject* object, PyObject* name, const Register& base);
  bool getattr_absence_facts(const Register& base, PyObject* getattr, PyObject* name);
  bool marking_facts(uint32_t at, PyObject* object, PyObject* name);
  bool tensor_facts(uint32_t at, PyObject* object);
  bool ambient_facts(const Instruction& i);

  // Writing the facts of one instruction: begin, emit some, end.
  void begin(uint32_t at);
  void emit(FactKind kind, cpython::Word word);
  void emit_type(PyObject* object);
  void emit_instance_dict(PyObject* object);
  size_t emitted() const { return updating_ ? changes_.size() - change_from_ : facts_->facts.size() - from_; }
  void drop_emitted();
  bool end(uint32_t at);
  // An anchor that was another object this often is a new one on every call: no facts begin there. A dict that has
  // changed in so many checks in a row changes on every call.
  static constexpr uint8_t kMostMoves = 3;

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
  std::vector<uint8_t> anchor_moves_;  // by instruction: how often an anchor was another object
  std::vector<bool> dict_moves_;       // by instruction: whether a dict was found whose version moves on every check
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
