//! Filters that give a generator in Jinja2: always true, without length, and empty after its first use. They take None
//! for an empty list.

use std::fmt;
use std::sync::{Arc, Mutex};

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, ValueOrKwargs};
use minijinja::{filters, Environment, Error, State, Value};

pub struct Generator(Mutex<Vec<Value>>);

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<generator object>")
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let items = self.0.lock().map(|mut items| std::mem::take(&mut *items)).unwrap_or_default();
        Enumerator::Iter(Box::new(items.into_iter().filter(|_| true)))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

fn generator(items: Result<Vec<Value>, Error>) -> Result<Value, Error> {
    items.map(|items| Value::from_object(Generator(Mutex::new(items))))
}

type Arguments = Rest<ValueOrKwargs>;

pub fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("map", |state: &mut State, value: Value, rest: Arguments| {
        generator(filters::map(state, value, rest))
    });
    environment.add_filter("select", |state: &mut State, value: Value, test: Option<String>, rest: Arguments| {
        generator(filters::select(state, value, test.map(Into::into), rest))
    });
    environment.add_filter("reject", |state: &mut State, value: Value, test: Option<String>, rest: Arguments| {
        generator(filters::reject(state, value, test.map(Into::into), rest))
    });
    environment.add_filter(
        "selectattr",
        |state: &mut State, value: Value, attribute: String, test: Option<String>, rest: Arguments| {
            generator(filters::selectattr(state, value, attribute.into(), test.map(Into::into), rest))
        },
    );
    environment.add_filter(
        "rejectattr",
        |state: &mut State, value: Value, attribute: String, test: Option<String>, rest: Arguments| {
            generator(filters::rejectattr(state, value, attribute.into(), test.map(Into::into), rest))
        },
    );
}
