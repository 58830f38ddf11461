// All that we know about the interpreter beyond its public API, per version; no other file may look inside an object
// of CPython. Where a layout is not known (a version not listed, or the self-test fails at import) the same helpers
// answer through the public API, slower.
//
// Contract of every helper here: needs the GIL; never leaves a Python error set; "borrowed" results live as long as
// their container is not changed.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <cstddef>
#include <cstdint>

namespace unified_guards::cpython {

// Where an entry of a dict was last found. It is a hint: it is believed only when the entry there has our key.
using Slot = uint32_t;
// No slot is worth looking for: the dict holds an equal key that is another object, or is too large to search.
constexpr Slot kNoSlot = 0xffffffff;

// ---- dict layout -------------------------------------------------------------------------------------------------

#if PY_VERSION_HEX < 0x030B0000
#define UG_DICT_LAYOUT 310
struct DictKeys {
  Py_ssize_t refcnt;
  Py_ssize_t size;
  void* lookup;
  Py_ssize_t usable;
  Py_ssize_t nentries;
  char indices[1];
};
#elif PY_VERSION_HEX < 0x030E0000
#define UG_DICT_LAYOUT 311
struct DictKeys {
  Py_ssize_t refcnt;
  uint8_t log2_size;
  uint8_t log2_index_bytes;
  uint8_t kind;  // 0: any keys, 1: only str, 2: only str and shared between instances
#ifdef Py_GIL_DISABLED
  PyMutex mutex;
#endif
  uint32_t version;
  Py_ssize_t usable;
  Py_ssize_t nentries;
  char indices[1];
};
struct StrEntry {
  PyObject* key;
  PyObject* value;
};
#else
#define UG_DICT_LAYOUT 0
#endif

struct Entry {
  Py_hash_t hash;
  PyObject* key;
  PyObject* value;
};

#if PY_VERSION_HEX >= 0x030D0000 && PY_VERSION_HEX < 0x030E0000
struct Values {
  uint8_t capacity, size, embedded, valid;
  PyObject* values[1];
};
#elif PY_VERSION_HEX >= 0x030B0000
struct Values {
  PyObject* values[1];
};
#endif

// False until self_test() has seen that the layouts above are this interpreter's.
inline bool layouts_known = false;

struct Item {
  PyObject* key;
  PyObject* value;
};

// Entry number `slot` of `dict` in insertion order, deleted ones included; {null, null} when there is none.
inline Item entry_at(PyObject* dict, Slot slot) {
#if UG_DICT_LAYOUT == 310
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  auto* keys = reinterpret_cast<DictKeys*>(object->ma_keys);
  if (static_cast<Py_ssize_t>(slot) >= keys->nentries) return {nullptr, nullptr};
  const Py_ssize_t index_bytes = keys->size <= 0xff ? 1 : keys->size <= 0xffff ? 2 : keys->size <= 0xffffffff ? 4 : 8;
  auto* entry = reinterpret_cast<Entry*>(keys->indices + keys->size * index_bytes) + slot;
  auto* values = reinterpret_cast<PyObject**>(object->ma_values);
  return {entry->key, values ? values[slot] : entry->value};
#elif UG_DICT_LAYOUT == 311
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  auto* keys = reinterpret_cast<DictKeys*>(object->ma_keys);
  if (static_cast<Py_ssize_t>(slot) >= keys->nentries) return {nullptr, nullptr};
  char* entries = keys->indices + (static_cast<size_t>(1) << keys->log2_index_bytes);
  if (keys->kind == 0) {
    auto* entry = reinterpret_cast<Entry*>(entries) + slot;
    return {entry->key, entry->value};
  }
  auto* entry = reinterpret_cast<StrEntry*>(entries) + slot;
  auto* values = reinterpret_cast<Values*>(object->ma_values);
  return {entry->key, values ? values->values[slot] : entry->value};
#else
  (void)dict;
  (void)slot;
  return {nullptr, nullptr};
#endif
}

// Addresses that reading an entry, a dict's keys or an instance's head will touch: to be fetched ahead, nothing else.
inline const void* entry_line(PyObject* dict, Slot slot) {
#if UG_DICT_LAYOUT
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  if (!layouts_known || slot == kNoSlot) return object->ma_keys;
#if UG_DICT_LAYOUT == 310
  if (object->ma_values) return object->ma_values + slot;
  return object->ma_keys;
#else
  if (object->ma_values) return reinterpret_cast<Values*>(object->ma_values)->values + slot;
  auto* keys = reinterpret_cast<DictKeys*>(object->ma_keys);
  const size_t entry = keys->kind == 0 ? sizeof(Entry) : sizeof(StrEntry);
  return keys->indices + (static_cast<size_t>(1) << keys->log2_index_bytes) + entry * slot;
#endif
#else
  (void)slot;
  return dict;
#endif
}

inline const void* keys_line(PyObject* dict) { return reinterpret_cast<PyDictObject*>(dict)->ma_keys; }

inline const void* head_line(PyObject* object) { return reinterpret_cast<PyObject**>(object) - 3; }

// How many entries there are, deleted ones included; 0 where the layout is not known.
inline Slot entries_used(PyObject* dict) {
#if UG_DICT_LAYOUT
  if (!layouts_known) return 0;
  auto used = reinterpret_cast<DictKeys*>(reinterpret_cast<PyDictObject*>(dict)->ma_keys)->nentries;
  return used < 0 ? 0 : static_cast<Slot>(used);
#else
  (void)dict;
  return 0;
#endif
}

constexpr Slot kLongestSearch = 8192;

// Finds a key by hash, then remembers its slot.
inline PyObject* dict_get_and_remember(PyObject* dict, PyObject* key, Slot& slot) {
  PyObject* value = PyDict_GetItemWithError(dict, key);
  if (value == nullptr) {
    if (PyErr_Occurred()) PyErr_Clear();
    return nullptr;
  }
  const Slot used = slot == kNoSlot ? 0 : entries_used(dict);
  slot = kNoSlot;
  for (Slot i = 0; i < used && used <= kLongestSearch; i++) {
    if (entry_at(dict, i).key == key) slot = i;
  }
  return value;
}

// dict[key] without overrides, borrowed; null when missing or when hashing or comparing the key raises.
// `dict` must be a dict. A matching key object in the remembered slot proves that this is the entry: keys are unique.
inline PyObject* dict_get(PyObject* dict, PyObject* key, Slot& slot) {
  if (layouts_known && slot != kNoSlot) {
    Item item = entry_at(dict, slot);
    if (item.key == key && item.value != nullptr) return item.value;
  }
  return dict_get_and_remember(dict, key, slot);
}

// Item number `position` of a dict in its own order (deleted entries skipped); {null, null} past the end.
inline Item dict_item_at(PyObject* dict, Py_ssize_t position) {
  if (layouts_known && entries_used(dict) == static_cast<Slot>(PyDict_GET_SIZE(dict))) {
    // Shared keys: an instance may have been filled in another order than its class's keys.
    if (reinterpret_cast<PyDictObject*>(dict)->ma_values == nullptr) {
      return entry_at(dict, static_cast<Slot>(position));
    }
  }
  Py_ssize_t cursor = 0, seen = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(dict, &cursor, &key, &value)) {
    if (seen++ == position) return {key, value};
  }
  return {nullptr, nullptr};
}

// ---- instance dicts ----------------------------------------------------------------------------------------------

// kOther: of a subclass of dict, which may answer for itself; only the interpreter knows what it makes of that.
enum class DictState { kNone, kReady, kNotMade, kOther };

struct InstanceDict {
  DictState state;
  PyObject* dict;  // borrowed, when kReady or kOther
};

inline InstanceDict made_dict(PyObject* dict) {
  return {PyDict_CheckExact(dict) ? DictState::kReady : DictState::kOther, dict};
}

// The instance dict of any object, without making one.
inline InstanceDict instance_dict(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
#if UG_DICT_LAYOUT == 311
  if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) {
    if (!layouts_known) return {DictState::kNotMade, nullptr};
#if PY_VERSION_HEX < 0x030C0000
    PyObject* dict = reinterpret_cast<PyObject**>(object)[-3];
    void* values = reinterpret_cast<void**>(object)[-4];
    if (dict != nullptr) return made_dict(dict);
    return {values != nullptr ? DictState::kNotMade : DictState::kNone, nullptr};
#elif PY_VERSION_HEX < 0x030D0000
    auto word = reinterpret_cast<uintptr_t*>(object)[-3];
    if (word & 1) return {DictState::kNotMade, nullptr};
    if (word) return made_dict(reinterpret_cast<PyObject*>(word));
    return {DictState::kNone, nullptr};
#else
    PyObject* dict = reinterpret_cast<PyObject**>(object)[-3];
    if (dict != nullptr) return made_dict(dict);
    return {DictState::kNotMade, nullptr};
#endif
  }
#elif UG_DICT_LAYOUT == 0
  if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) return {DictState::kNotMade, nullptr};
#endif
  if (type->tp_dictoffset == 0) return {DictState::kNone, nullptr};
  if (type->tp_dictoffset < 0) return {DictState::kNotMade, nullptr};
  PyObject* dict = *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + type->tp_dictoffset);
  if (dict != nullptr) return made_dict(dict);
  return {DictState::kNone, nullptr};
}

// ---- iterators ---------------------------------------------------------------------------------------------------

struct TupleIterator {
  PyObject_HEAD
  Py_ssize_t index;
  PyTupleObject* sequence;  // null when exhausted
};

struct RangeIterator {
  PyObject_HEAD
#if PY_VERSION_HEX < 0x030C0000
  long index;
#endif
  long start, step, length;
};

// Before 3.12 a range iterator counts an index up; from 3.12 it moves `start` and lowers `length`.
struct RangeState {
  long start, stop, step;
};

inline RangeState range_state(PyObject* iterator) {
  auto* it = reinterpret_cast<RangeIterator*>(iterator);
#if PY_VERSION_HEX < 0x030C0000
  return {it->start + it->index * it->step, it->start + it->length * it->step, it->step};
#else
  return {it->start, it->start + it->length * it->step, it->step};
#endif
}

// ---- types, weak references, functions ---------------------------------------------------------------------------

inline bool is_built_in(PyTypeObject* type) { return !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE); }

// The dict of a type; a new reference from 3.12 on, where static builtin types keep theirs elsewhere.
inline PyObject* type_dict(PyObject* type, bool& is_new) {
#if PY_VERSION_HEX >= 0x030C0000
  is_new = true;
  return PyType_GetDict(reinterpret_cast<PyTypeObject*>(type));
#else
  is_new = false;
  return reinterpret_cast<PyTypeObject*>(type)->tp_dict;
#endif
}

// The target of a weak reference or proxy as a new reference; None when it is dead.
inline PyObject* weakref_target(PyObject* reference) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* target = nullptr;
  if (PyWeakref_GetRef(reference, &target) < 0) {
    PyErr_Clear();
    return nullptr;
  }
  return target != nullptr ? target : Py_NewRef(Py_None);
#else
  PyObject* target = PyWeakref_GetObject(reference);
  if (target == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  Py_INCREF(target);
  return target;
#endif
}

// Whether attribute access on this type starts as object's own does: type, instance dict, and only then __getattr__.
inline bool plain_attribute_access(PyTypeObject* type) {
  if (type->tp_getattro == PyObject_GenericGetAttr || type->tp_getattro == PyModule_Type.tp_getattro) return true;
  static PyObject* name = PyUnicode_InternFromString("__getattribute__");
  return _PyType_Lookup(type, name) == _PyType_Lookup(&PyBaseObject_Type, name);
}

// ---- words -------------------------------------------------------------------------------------------------------
//
// A word is the address of 8 bytes that change when what they stand for changes. It may be read as long as the object
// that it is in lives; null where this interpreter has no such word.

using Word = const uint64_t*;

inline Word word_at(const void* address) { return static_cast<Word>(address); }

inline uint64_t bits(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// False until self_test() has seen that the words of types and of instances change as is said here.
inline bool words_known = false;

inline Word type_word(PyObject* object) { return word_at(&object->ob_type); }

inline bool has_base(PyObject* type, PyObject* base) {
  PyObject* bases = reinterpret_cast<PyTypeObject*>(type)->tp_bases;
  for (Py_ssize_t at = 0; bases != nullptr && at < PyTuple_GET_SIZE(bases); at++) {
    if (PyTuple_GET_ITEM(bases, at) == base) return true;
  }
  return false;
}

// Whether a change of any class in which a type looks for attributes is told to the type: the interpreter tells those
// that have the class for a base, while a metaclass may have put any class in.
inline bool is_told_of_changes(PyTypeObject* type) {
  static PyObject* name = PyUnicode_InternFromString("mro");
  if (_PyType_Lookup(Py_TYPE(type), name) != _PyType_Lookup(&PyType_Type, name)) return false;
  PyObject* mro = type->tp_mro;
  const Py_ssize_t count = mro != nullptr ? PyTuple_GET_SIZE(mro) : 0;
  if (count == 0 || PyTuple_GET_ITEM(mro, 0) != reinterpret_cast<PyObject*>(type)) return false;
  for (Py_ssize_t at = 1; at < count; at++) {
    bool is_base = false;
    for (Py_ssize_t before = at; !is_base && before-- > 0;) {
      is_base = has_base(PyTuple_GET_ITEM(mro, before), PyTuple_GET_ITEM(mro, at));
    }
    if (!is_base) return false;
  }
  return true;
}

// Whether the dict of a class has no key but exact strings: no other can be asked whether it equals a name.
inline bool has_plain_names(PyTypeObject* type) {
#if UG_DICT_LAYOUT == 311
  if (is_built_in(type)) return true;  // its dict is the interpreter's own
  auto* dict = reinterpret_cast<PyDictObject*>(type->tp_dict);
  return layouts_known && dict != nullptr && reinterpret_cast<DictKeys*>(dict->ma_keys)->kind != 0;
#else
  bool is_new = false, are_plain = true;
  PyObject* dict = type_dict(reinterpret_cast<PyObject*>(type), is_new);
  Py_ssize_t cursor = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (are_plain && PyDict_Next(dict, &cursor, &key, &value)) are_plain = PyUnicode_CheckExact(key);
  if (is_new) Py_DECREF(dict);
  return are_plain;
#endif
}

inline bool all_have_plain_names(PyTypeObject* type) {
  PyObject* mro = type->tp_mro;
  for (Py_ssize_t at = 0; mro != nullptr && at < PyTuple_GET_SIZE(mro); at++) {
    if (!has_plain_names(reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, at)))) return false;
  }
  return mro != nullptr;
}

// Whether looking a name up in a type and its bases runs no code of a user's: a class may have been made with names
// that compare themselves. What was found of a version of a type is remembered, where versions are not used again.
inline bool looks_up_purely(PyTypeObject* type) {
#if PY_VERSION_HEX < 0x030B0000
  return all_have_plain_names(type);
#else
  constexpr size_t kMostVersions = 1024;
  static unsigned int pure_versions[kMostVersions];
  const unsigned int version = type->tp_version_tag;
  unsigned int& remembered = pure_versions[version % kMostVersions];
  if (version != 0 && remembered == version) return true;
  if (!all_have_plain_names(type)) return false;
  remembered = version;
  return true;
#endif
}

// Changes with every attribute of the type or of one of its bases, and is never used again: not so on Python 3.10. The
// four bytes after the tag are padding. Asking for an attribute first has the interpreter give the type a tag, which
// the interpreter may refuse.
inline Word type_version_word(PyTypeObject* type) {
#if PY_VERSION_HEX < 0x030B0000
  (void)type;
  return nullptr;
#else
  static PyObject* any = PyUnicode_InternFromString("__class__");
  if (!words_known || !looks_up_purely(Py_TYPE(type)) || !looks_up_purely(type)) return nullptr;
  if (!is_told_of_changes(type)) return nullptr;
  _PyType_Lookup(type, any);
#if PY_VERSION_HEX < 0x030D0000
  if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) return nullptr;
#endif
  return type->tp_version_tag != 0 ? word_at(&type->tp_version_tag) : nullptr;
#endif
}

#if PY_VERSION_HEX < 0x030C0000
#define UG_DICT_TAGS 1  // later versions let dicts be watched (watch.cpp)
// Of a dict: unique in the process, never used twice, another one after every change.
inline Word dict_tag_word(PyObject* dict) { return word_at(&reinterpret_cast<PyDictObject*>(dict)->ma_version_tag); }
#endif

// Where an object keeps the pointer to its instance dict, made or not. Null also for an object without any.
inline Word dict_word(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
#if UG_DICT_LAYOUT == 311
  if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) return layouts_known ? word_at(object) - 3 : nullptr;
#endif
  if (instance_dict(object).state == DictState::kNotMade || type->tp_dictoffset <= 0) return nullptr;
  return word_at(reinterpret_cast<char*>(object) + type->tp_dictoffset);
}

// An attribute of an instance whose dict has not been made: the slot holds the value, null when it is absent, as long
// as `holder` is what it is.
struct InlineSlot {
  Word holder, slot;
};

#if UG_DICT_LAYOUT == 311
inline StrEntry* names_of(DictKeys* keys) {
  return reinterpret_cast<StrEntry*>(keys->indices + (static_cast<size_t>(1) << keys->log2_index_bytes));
}

// The attributes of an object whose dict has not been made: names that instances of the class share, values of its own.
struct InlineAttributes {
  DictKeys* keys;  // null where there are none, or where they are kept in a way that is not known
  Word holder;
  Values* values;
};

inline InlineAttributes inline_attributes(PyObject* object) {
  constexpr InlineAttributes none{nullptr, nullptr, nullptr};
  if (!words_known || !PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_MANAGED_DICT)) return none;
  if (instance_dict(object).state != DictState::kNotMade) return none;
#if PY_VERSION_HEX < 0x030C0000
  Word holder = word_at(object) - 4;
  auto* values = reinterpret_cast<Values*>(*holder);
#elif PY_VERSION_HEX < 0x030D0000
  Word holder = word_at(object) - 3;
  auto* values = reinterpret_cast<Values*>(*holder + 1);  // an odd address says that these are values, not a dict
#else
  Word holder = word_at(reinterpret_cast<char*>(object) + Py_TYPE(object)->tp_basicsize);
  auto* values = const_cast<Values*>(reinterpret_cast<const Values*>(holder));
  if (!PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_INLINE_VALUES) || !values->valid) return none;
#endif
  auto* keys = reinterpret_cast<DictKeys*>(reinterpret_cast<PyHeapTypeObject*>(Py_TYPE(object))->ht_cached_keys);
  if (keys == nullptr || keys->kind != 2) return none;
  return {keys, holder, values};
}
#endif

inline InlineSlot inline_slot(PyObject* object, PyObject* name) {
#if UG_DICT_LAYOUT == 311
  const InlineAttributes found = inline_attributes(object);
  if (found.keys == nullptr) return {nullptr, nullptr};
  const StrEntry* names = names_of(found.keys);
  for (Py_ssize_t i = 0; i < found.keys->nentries; i++) {
    if (names[i].key == name) return {found.holder, word_at(found.values->values + i)};
  }
#else
  (void)object;
  (void)name;
#endif
  return {nullptr, nullptr};
}

inline Word type_dict_word(PyObject* heap_type) {
  return word_at(&reinterpret_cast<PyTypeObject*>(heap_type)->tp_dict);
}
// Where a class keeps its __name__ or __qualname__; null for one written in C, which makes a new string each time.
inline Word type_name_word(PyObject* type, bool qualified) {
  if (is_built_in(reinterpret_cast<PyTypeObject*>(type))) return nullptr;
  auto* heap_type = reinterpret_cast<PyHeapTypeObject*>(type);
  return word_at(qualified ? &heap_type->ht_qualname : &heap_type->ht_name);
}

inline Word mro_word(PyObject* type) { return word_at(&reinterpret_cast<PyTypeObject*>(type)->tp_mro); }
inline Word cell_word(PyObject* cell) { return word_at(&reinterpret_cast<PyCellObject*>(cell)->ob_ref); }
inline Word size_word(PyObject* list) { return word_at(&reinterpret_cast<PyVarObject*>(list)->ob_size); }
inline Word items_word(PyObject* list) { return word_at(&reinterpret_cast<PyListObject*>(list)->ob_item); }
inline Word item_word(PyObject* list, uint32_t at) {
  return word_at(reinterpret_cast<PyListObject*>(list)->ob_item + at);
}
inline Word tuple_item_word(PyObject* tuple, uint32_t at) {
  return word_at(reinterpret_cast<PyTupleObject*>(tuple)->ob_item + at);
}
inline Word set_size_word(PyObject* set) { return word_at(&reinterpret_cast<PySetObject*>(set)->used); }
// None once the target is dead. The reference itself must not be a subclass that answers calls otherwise.
inline Word weakref_word(PyObject* reference) {
  return word_at(&reinterpret_cast<PyWeakReference*>(reference)->wr_object);
}

// Kinds of fields that members of a type stand for: an object, absent or None when there is none.
#if PY_VERSION_HEX >= 0x030C0000
constexpr int kMember = Py_T_OBJECT_EX, kMemberOrNone = 6;
#else
constexpr int kMember = T_OBJECT_EX, kMemberOrNone = T_OBJECT;
#endif
constexpr int kAuditedMember = 2;  // a flag: hooks of the user's are told that it is read

// Whether `object.__dict__`, where attribute access is object's own, is the instance dict.
bool shows_instance_dict(PyObject* object);

// What a type or its bases define by this name, borrowed; a lookup that the interpreter caches.
inline PyObject* of_type(PyTypeObject* type, const char* name) {
  PyObject* interned = PyUnicode_InternFromString(name);
  PyObject* found = interned != nullptr ? _PyType_Lookup(type, interned) : nullptr;
  Py_XDECREF(interned);
  return found;
}

// ---- reading without running code of a user's --------------------------------------------------------------------

// Hashing and comparing these runs no code of a user's, and they never change.
inline bool is_plain(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  return type == &PyUnicode_Type || type == &PyLong_Type || type == &PyFloat_Type || type == &PyBool_Type ||
         type == &PyBytes_Type || type == &PyComplex_Type || object == Py_None || object == Py_Ellipsis;
}

constexpr Py_ssize_t kMostKeysToSearch = 4096;

// Whether no key of a dict can be asked whether it equals a plain one.
inline bool has_plain_keys(PyObject* dict) {
#if UG_DICT_LAYOUT == 311
  auto* keys = reinterpret_cast<DictKeys*>(reinterpret_cast<PyDictObject*>(dict)->ma_keys);
  if (layouts_known && keys->kind != 0) return true;
#endif
  if (PyDict_GET_SIZE(dict) > kMostKeysToSearch) return false;
  Py_ssize_t cursor = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(dict, &cursor, &key, &value)) {
    if (!is_plain(key)) return false;
  }
  return true;
}

// Whether no member of a set can be asked whether it equals a plain one.
inline bool has_plain_members(PyObject* set) {
  auto* table = reinterpret_cast<PySetObject*>(set)->table;
  const Py_ssize_t slots = reinterpret_cast<PySetObject*>(set)->mask + 1;
  if (!PyAnySet_CheckExact(set) || slots > kMostKeysToSearch) return false;
  for (Py_ssize_t at = 0; at < slots; at++) {
    const bool is_used = table[at].key != nullptr && table[at].hash != -1;  // -1: a member that was deleted
    if (is_used && !is_plain(table[at].key)) return false;
  }
  return true;
}

// While it lives no collection starts. Up to Python 3.11 one may start wherever an object is made, and run finalizers.
class Uncollected {
 public:
  Uncollected() : was_enabled_(PyGC_Disable() != 0) {}
  Uncollected(const Uncollected&) = delete;
  ~Uncollected() {
    if (was_enabled_) PyGC_Enable();
  }

 private:
  bool was_enabled_;
};

struct Found {
  bool certain;     // false when only code of a user's could tell
  PyObject* value;  // borrowed; null when there is none

  bool is_absent() const { return certain && value == nullptr; }
};

#if UG_DICT_LAYOUT == 311
// Looks a name up among few others without hashing: of two interned strings that are equal there is one. Uncertain
// where there are many, or where one of them is not interned. `values` is null where the entries have them.
inline Found find_among_few(DictKeys* keys, Values* values, PyObject* name) {
  constexpr Py_ssize_t kFew = 16;
  constexpr Found unknown{false, nullptr};
  if (keys->kind == 0 || keys->nentries > kFew) return unknown;
  if (!PyUnicode_CheckExact(name) || !PyUnicode_CHECK_INTERNED(name)) return unknown;
  const StrEntry* entries = names_of(keys);
  for (Py_ssize_t at = 0; at < keys->nentries; at++) {
    PyObject* key = entries[at].key;  // null where it was deleted
    if (key == name) return {true, values != nullptr ? values->values[at] : entries[at].value};
    if (key != nullptr && !PyUnicode_CHECK_INTERNED(key)) return unknown;
  }
  return {true, nullptr};
}
#endif

inline Found find_among_few(PyObject* dict, PyObject* name) {
#if UG_DICT_LAYOUT == 311
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  if (layouts_known) {
    return find_among_few(reinterpret_cast<DictKeys*>(object->ma_keys), reinterpret_cast<Values*>(object->ma_values),
                          name);
  }
#else
  (void)dict;
  (void)name;
#endif
  return {false, nullptr};
}

// The same of the attributes of an object whose dict has not been made.
inline Found inline_value(PyObject* object, PyObject* name) {
#if UG_DICT_LAYOUT == 311
  const InlineAttributes attributes = inline_attributes(object);
  if (attributes.keys != nullptr) return find_among_few(attributes.keys, attributes.values, name);
#else
  (void)object;
  (void)name;
#endif
  return {false, nullptr};
}

// dict[key] where looking the key up runs no code of a user's; `slot` is where the key was last found (see dict_get).
inline Found find_purely(PyObject* dict, PyObject* key, Slot& slot) {
  if (slot == kNoSlot) {
    const Found found = find_among_few(dict, key);
    if (found.certain) return found;
  } else if (layouts_known) {
    const Item item = entry_at(dict, slot);
    if (item.key == key && item.value != nullptr) return {true, item.value};
  }
  if (!is_plain(key) || !has_plain_keys(dict)) return {false, nullptr};
  return {true, dict_get(dict, key, slot)};
}

inline Found find_purely(PyObject* dict, PyObject* key) {
  Slot nowhere = kNoSlot;
  return find_purely(dict, key, nowhere);
}

// Whether a dict is certain not to have a key.
inline bool lacks_purely(PyObject* dict, PyObject* key) { return find_purely(dict, key).is_absent(); }

// ---- what code objects carry ------------------------------------------------------------------------------------

// What a code object carries for the extension that was given this index; null when there is nothing.
inline void* extra_of(PyObject* code, Py_ssize_t index) {
  void* extra = nullptr;
#if PY_VERSION_HEX >= 0x030C0000
  const int failed = PyUnstable_Code_GetExtra(code, index, &extra);
#else
  const int failed = _PyCode_GetExtra(code, index, &extra);
#endif
  if (failed) PyErr_Clear();
  return failed ? nullptr : extra;
}

// The only index for which a code object carries something; -1 where there is none, or more than one.
Py_ssize_t only_extra_of(PyObject* code);

// Where the interpreter keeps the function that frees what code objects carry at an index; null where that is not
// known. What is written there must free what the function did that was there.
freefunc* extra_free_slot(Py_ssize_t index);

// Runs Python code of ours in a scope; false when it raises.
bool run(const char* code, PyObject* scope);

// A new scope in which code of ours has run; null when it raised.
PyObject* scope_of(const char* code);

// Compares what the layouts above say with what the public API says, on objects made for it.
// Sets layouts_known and words_known; called once, when the extension is imported.
void self_test();

}  // namespace unified_guards::cpython
