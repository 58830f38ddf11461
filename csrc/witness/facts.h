// What a passing check remembers, so that the next one need not evaluate it again.
//
// A fact is a word of memory and the value that it had. As long as the word has that value, and the facts before it
// hold, the instruction that owns the fact gives the same answer. Facts come in the order of the program, parents
// before children, so that no word is read inside an object of which an earlier fact has not vouched that it is alive.
// Tensors are not remembered but read again, through the pointers that the facts vouch for: their metadata is checked
// exactly, in one loop.
//
// A word that holds a pointer may hold the same pointer later, to another object that was made where the first was
// freed. So whatever is believed of a value is read from the value itself: its type, then its version, its fields or
// its items. Only plain immutable values (numbers, strings, tuples of them) are believed by their address. These are
// owned, so that no other object can be made there. Nothing else is owned.
#pragma once

#include "check/evaluate.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace unified_guards {

struct Fact {
  cpython::Word word;
  uint64_t expected;
};
static_assert(sizeof(Fact) == 16);

// What is believed. docs/soundness.md has a row for each: the words, what must hold for them to be believed, who can
// change what they stand for, and the mutations of the fuzzer that try it (tests/test_soundness.py compares).
// The first group are words in the stream of facts; the second is read again on every check, in a form of its own.
#define UG_FACT_KINDS(X)                                                          \
  X(kType, "type")                                 /* ob_type of an object      */ \
  X(kTypeVersion, "type version")                  /* of a class and its bases  */ \
  X(kDictVersion, "dict version")                  /* tag or watcher's counter  */ \
  X(kDictTable, "dict table")                      /* where a dict's keys are   */ \
  X(kDictEntry, "dict entry")                      /* one key and its value     */ \
  X(kDictSearch, "dict search")                    /* that finds no such key    */ \
  X(kInstanceDict, "instance dict")                /* where the object keeps it */ \
  X(kInlineValues, "inline values")                /* the array of them         */ \
  X(kInlineValue, "inline value")                  /* one of them               */ \
  X(kSlot, "slot")                                 /* field of a member         */ \
  X(kCell, "cell")                                 /* contents                  */ \
  X(kLength, "length")                             /* of a list, tuple or set   */ \
  X(kListItems, "list items")                      /* the array of them         */ \
  X(kItem, "item")                                 /* one of them               */ \
  X(kClassDict, "class dict")                      /* tp_dict                   */ \
  X(kMro, "mro")                                   /* tp_mro                    */ \
  X(kClassName, "class name")                      /* __name__, __qualname__    */ \
  X(kFunctionField, "function field")              /* code, defaults, closure   */ \
  X(kMethodFunction, "method function")            /* __func__ of a method      */ \
  X(kWeakref, "weak reference")                    /* its target                */ \
  X(kTensorImplementation, "tensor implementation") /* TensorImpl               */ \
  X(kAutogradMetadata, "autograd metadata")        /* of an implementation      */ \
  X(kGradient, "gradient")                         /* grad of that              */ \
  X(kGradientObject, "gradient object")            /* its Python object         */ \
  X(kAnchor, "anchor")                             /* an object in the frame    */ \
  X(kTensor, "tensor")                             /* metadata, compared        */ \
  X(kState, "state")                               /* of the thread and process */

enum class FactKind : uint8_t {
#define UG_FACT_KIND(name, text) name,
  UG_FACT_KINDS(UG_FACT_KIND)
#undef UG_FACT_KIND
      kCount
};

// How often a fact of each kind was found to have moved, by any program.
struct FactsMoved {
  uint64_t of[static_cast<size_t>(FactKind::kCount)] = {};

  void note(FactKind kind) { of[static_cast<size_t>(kind)]++; }
};
extern FactsMoved facts_moved;

// A tensor to compare with TensorSpec `spec`. `implementation` and `autograd` are where these were last: they are only
// fetched ahead, never read through.
struct TensorFact {
  PyObject* tensor;
  const void* implementation;
  const void* autograd;
  uint32_t spec : 31;
  uint32_t is_bare : 1;   // it has no attributes of its own
  uint32_t type_version;  // of its type; 0 when nothing depends on that
};
static_assert(sizeof(TensorFact) == 32);

// Whether two tensors are compared with the same values, so that they can stand in one run.
inline bool are_alike(const TensorFact& a, const TensorFact& b) {
  return a.spec == b.spec && a.is_bare == b.is_bare && a.type_version == b.type_version;
}

// How an instruction is answered.
enum class Mode : uint8_t {
  kLive,        // it is evaluated on every check
  kRemembered,  // by facts
  kAnchor,      // an accessor that is read on every check and finds the same object: facts begin here
};

struct Remembered {
  uint32_t first = 0;  // where its facts begin; of a tensor guard: which TensorFact
  Mode mode = Mode::kLive;
  uint16_t reading_facts = 0;  // how many of its facts say that an accessor still finds the same value
  uint8_t has = 0;             // which Needs of the instructions below it its other facts answer
};

// The classes whose addresses facts compare. An address names a class only as long as the class lives: afterwards
// another class may be made there, and objects of it where objects of the first were. So a weak reference to each is
// asked before all facts.
class KnownTypes {
 public:
  KnownTypes() = default;
  KnownTypes(KnownTypes&& other) noexcept : types_(std::move(other.types_)) { other.types_.clear(); }
  KnownTypes& operator=(KnownTypes&& other) noexcept {
    std::swap(types_, other.types_);
    return *this;
  }
  ~KnownTypes() {
    for (const Known& known : types_) Py_DECREF(known.reference);
  }

  // False when there is no memory for a reference. Runs no code of a user's.
  bool add(PyTypeObject* type);

  bool are_alive() const {
    return std::all_of(types_.begin(), types_.end(), [](const Known& known) {
      return *cpython::weakref_word(known.reference) == cpython::bits(known.type);
    });
  }
  size_t bytes() const { return types_.capacity() * sizeof(Known); }

 private:
  struct Known {
    PyTypeObject* type;
    PyObject* reference;
  };
  std::vector<Known> types_;
};

// The plain immutable values that facts believe by their addresses, each owned for one instruction.
class Kept {
 public:
  Kept() = default;
  Kept(Kept&& other) noexcept : values_(std::move(other.values_)) { other.values_.clear(); }
  Kept& operator=(Kept&& other) noexcept {
    std::swap(values_, other.values_);
    return *this;
  }
  ~Kept() {
    for (const auto& [at, value] : values_) Py_DECREF(value);
  }

  void add(uint32_t at, PyObject* value) { values_.emplace_back(at, Py_NewRef(value)); }
  void replace(uint32_t at, PyObject* value) {
    for (auto& [owner, old] : values_) {
      if (owner != at) continue;
      Py_INCREF(value);
      Py_SETREF(old, value);
      return;
    }
    add(at, value);
  }
  size_t bytes() const { return values_.capacity() * sizeof(values_[0]); }

 private:
  std::vector<std::pair<uint32_t, PyObject*>> values_;
};

// In which check the version of a dict that an instruction reads was last found to have moved.
struct DictMoved {
  uint32_t at;        // the instruction
  uint32_t in_a_row;  // in how many checks one after the other
  uint64_t check;     // as Facts::checks counts
};

// The facts about one root.
struct Facts {
  static constexpr size_t kAhead = 24, kTensorsAhead = 12;

  // The last kAhead facts and kTensorsAhead tensors are padding, so that prefetching needs no bounds check.
  std::vector<Fact> facts;
  std::vector<uint32_t> owners;  // of each fact: which instruction
  std::vector<FactKind> kinds;   // of each fact
  std::vector<TensorFact> tensors;
  std::vector<uint32_t> tensor_owners;  // of each tensor: which instruction
  std::vector<uint32_t> runs;           // where runs of tensors that are alike end
  std::vector<Likeness> likenesses;     // by spec
  std::vector<Remembered> remembered;   // by instruction
  std::vector<PyObject*> found;         // by instruction: what an accessor that is not live found
  KnownTypes types;
  Kept kept;
  SeenTable unique;  // objects with facts, in a group of UNIQUE in which others are live
  uint64_t checks = 0;
  std::vector<DictMoved> dict_moved;

  size_t count() const { return owners.size(); }
  size_t tensor_count() const { return tensor_owners.size(); }

  // Call when all has been recorded: sorts the tensors and adds the padding.
  void finish();
  void sort_tensors();

  // Notes that the version of a dict of instruction `at` has moved. Gives in how many checks in a row it has.
  uint32_t note_dict_moved(uint32_t at);

  // Whether instruction `at` has a fact of this kind.
  bool has(uint32_t at, FactKind kind) const;

  size_t bytes() const {
    return facts.capacity() * sizeof(Fact) + kinds.capacity() +
           (owners.capacity() + tensor_owners.capacity() + runs.capacity()) * sizeof(uint32_t) +
           tensors.capacity() * sizeof(TensorFact) + likenesses.capacity() * sizeof(Likeness) +
           remembered.capacity() * sizeof(Remembered) + found.capacity() * sizeof(PyObject*) + unique.bytes() +
           dict_moved.capacity() * sizeof(DictMoved) + kept.bytes() + types.bytes();
  }
};

}  // namespace unified_guards
