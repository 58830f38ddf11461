// See fact_builder.h: facts on single entries of a dict that changes on every call.
//
// One fact on the version of a dict stands for all of its entries. It is worth nothing where another entry changes
// between any two checks: a loop at the level of a module writes its variables to the globals, a module may count its
// calls. There the facts are on where the dict's table of keys is, and then, for each entry that is read, on its key
// and its value. That a dict has no such key is decided by the words that a search for it reads. What depends on the
// dict as a whole (its keys in order) has no facts then.
#include "cpython/pure.h"
#include "witness/fact_builder.h"

namespace unified_guards {

using cpython::Search;

void FactBuilder::table_facts(PyObject* dict) {
  const cpython::DictTable table = cpython::dict_table(dict);
  emit(FactKind::kDictTable, table.keys);
  if (table.values != nullptr) emit(FactKind::kDictTable, table.values);
  emit(FactKind::kDictTable, table.shape);
}

// What a dict with facts on its table has by this name. There are facts, too, that it has nothing.
cpython::Found FactBuilder::read_entry(PyObject* dict, PyObject* name) {
  const Search found = cpython::search(dict, name);
  if (found.result == Search::Result::kUnknown) return {false, nullptr};
  if (found.result == Search::Result::kFound) {
    emit(FactKind::kDictEntry, found.entry.key);
    emit(FactKind::kDictEntry, found.entry.value);
    return {true, reinterpret_cast<PyObject*>(*found.entry.value)};
  }
  for (size_t at = 0; at < found.count; at++) emit(FactKind::kDictSearch, found.words[at]);
  return {true, nullptr};
}

// The same of the instance dict of an object.
cpython::Found FactBuilder::read_instance(const Register& base, PyObject* dict, PyObject* name, cpython::Slot& slot) {
  return base.has & kHasInstanceTable ? read_entry(dict, name) : cpython::find_purely(dict, name, slot);
}

// Whether the version of the dict that an accessor found, or of the instance dict of what it found, moves on every
// check, and there can be facts on the table of that dict instead. If so, the next record() of any root has them; also
// for other accessors that lead to a dict which has just moved, since most often that is the same dict.
bool FactBuilder::dict_keeps_moving(uint32_t at) {
  if (facts_->note_dict_moved(at) < kMostMoves || facts_->has(at, FactKind::kDictTable)) return false;
  PyObject* value = facts_->found[at];
  const cpython::InstanceDict instance = cpython::instance_dict(value);
  for (const DictMoved& moved : facts_->dict_moved) {
    if (moved.check + 1 >= facts_->checks && moved.in_a_row + 1 >= kMostMoves) dict_moves_[moved.at] = true;
  }
  current_ = at;
  return PyDict_CheckExact(value)
             ? is_on_table(value)
             : instance.state == cpython::DictState::kReady && is_instance_on_table(value, instance.dict);
}

}  // namespace unified_guards
