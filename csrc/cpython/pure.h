// Questions about an object, answered without running code of a user's, or answered with "only such code could tell".
//
// Asking Python may run a property, a __getattr__, an __eq__ of another key or a __len__, and such code may change or
// free whatever else is guarded (see Evaluation::before_user_code). So each question is tried here first.
#pragma once

#include "cpython/cpython.h"

namespace unified_guards {

struct PureAttribute {
  bool certain;     // false when only code of a user's could tell
  PyObject* value;  // null when it is absent
  bool is_new;      // a new reference; else borrowed
};

// getattr(object, name).
PureAttribute attribute_purely(PyObject* object, PyObject* name, cpython::Slot& slot);

// Whether getattr() of an object of this class finds what the instance dict has under this name, wherever it has that.
bool attributes_are_of_instance(PyTypeObject* type, PyObject* name);

// Whether an object certainly has none of a list of attributes. `version` belongs to the caller, one for each list: the
// version tag of a class that was found to have none of them; 0 at first.
bool lacks_purely(PyObject* object, PyObject* names, unsigned int& version);

// Whether a value and all that it holds never change, and comparing it with another such value runs no code of a
// user's. The answer is no for a deep tuple or one of many items: it is not looked through.
bool is_immutable(PyObject* value);

// Whether len() of an object, and what PySequence_Length says, is a field of the object.
bool has_plain_length(PyObject* object);

// Whether object[key] is known for an exact list or tuple: `value` is borrowed, null when there is no such item.
bool item_purely(PyObject* object, PyObject* key, PyObject*& value);

// Whether comparing the keys of an exact dict with these runs no code of a user's.
bool keys_compare_purely(PyObject* dict, PyObject* expected);

// The object that a bound method, written in Python or in C, is bound to and holds a reference to; borrowed here.
struct Bound {
  bool is_bound;
  PyObject* to;  // null where there is none
};
Bound bound_of(PyObject* object);

// Whether no code of a user's can notice that an object dies. The object that a bound method is bound to does not
// count.
bool dies_quietly(PyObject* object);

}  // namespace unified_guards
