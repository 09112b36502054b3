//! The environment of chat templates: what `utils/chat_template_utils.py` of transformers gives them, within limits.

use super::json::tojson;
use super::limits::{self, charge, charge_deep, charge_shallow, check_depth};
use super::python::{self, call_method, charge_replaced, check_widths, invalid};
use super::time::strftime_now;
use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};
use minijinja::{Environment, Error, State, UndefinedBehavior, filters, functions};
use std::cell::Cell;
use std::sync::OnceLock;

/// Function that marks what the assistant has generated.
pub(super) const GENERATION: &str = "generation__";
/// Function that counts the bytes of a text between tags.
pub(super) const COUNT: &str = "count__";
/// Function of a value that is made: a list or a dictionary that is written out, or a slice.
pub(super) const MADE: &str = "made__";
/// Filter on an operand of `~`.
pub(super) const TEXT: &str = "text__";
/// Filter on an operand of `+`.
pub(super) const OPERAND: &str = "operand__";
/// Filter on a value that a namespace takes; it reads the namespace.
pub(super) const KEEP: &str = "keep__";
/// Filter on an operand of `*`.
pub(super) const FACTOR: &str = "factor__";

/// Filters of minijinja that copy what they take.
const FILTERS: [&str; 25] = [
    "upper",
    "lower",
    "title",
    "capitalize",
    "replace",
    "dictsort",
    "items",
    "reverse",
    "trim",
    "join",
    "split",
    "lines",
    "sum",
    "min",
    "max",
    "sort",
    "list",
    "slice",
    "batch",
    "indent",
    "groupby",
    "unique",
    "chain",
    "zip",
    "format",
];

/// Filters among them that take keyword arguments, as minijinja reads them or as is done here.
const WITH_KEYWORDS: [&str; 7] = [
    "join", "indent", "dictsort", "sort", "groupby", "unique", "format",
];

thread_local! {
    /// Marks before and after what the assistant has generated, in the rendering on this thread; `None` for no marks.
    static MARKS: Cell<Option<[char; 2]>> = const { Cell::new(None) };
}

/// Prepares this thread for a rendering of so many messages, with variables of a size in bytes.
pub(super) fn start(messages: usize, variables: usize, marks: Option<[char; 2]>) {
    limits::start(messages, variables);
    MARKS.set(marks);
}

/// Creates the environment.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_unknown_method_callback(call_method);
    env.set_formatter(|out, _, value| {
        let mut text = String::new();
        python::write_str(&mut text, value)?;
        out.write_str(&text).map_err(Error::from)
    });
    env.add_function(
        "raise_exception",
        |message: Value| -> Result<Value, Error> {
            Err(invalid(format!(
                "the template refuses it: {}",
                python::str(&message)?
            )))
        },
    );
    env.add_function("strftime_now", strftime_now);
    env.add_function(GENERATION, generation);
    env.add_function(COUNT, |bytes: usize| {
        charge(bytes).map(|()| Value::from(""))
    });
    env.add_filter(TEXT, |value: &Value| match value.as_str() {
        Some(text) => charge(text.len()).map(|()| value.clone()),
        None => Ok(Value::from(python::str(value)?)),
    });
    env.add_filter(OPERAND, |value: &Value| {
        charge_shallow(value).map(|()| value.clone())
    });
    env.add_filter(FACTOR, factor);
    env.add_filter(KEEP, |value: &Value, _: &Value| {
        check_depth(value, false).map(|()| value.clone())
    });
    env.add_function(MADE, made);
    env.add_function("dict", |value: Option<Value>, members: Kwargs| {
        made(functions::dict(value, members)?)
    });
    env.add_function("namespace", |members: Option<Value>| {
        members
            .iter()
            .try_for_each(|members| check_depth(members, false))?;
        functions::namespace(members)
    });
    env.add_filter("tojson", |value: &Value, kwargs: Kwargs| {
        tojson(value, kwargs)
    });
    env.add_filter("string", |value: &Value| python::str(value));
    env.add_filter("pprint", |value: &Value| python::str(value));
    env.add_test("iterable", |value: &Value| {
        !value.is_undefined() && !value.is_none() && value.try_iter().is_ok()
    });
    // In Python texts and dictionaries have a length and elements, too.
    env.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::String | ValueKind::Map
        )
    });
    for name in FILTERS {
        env.add_filter(name, move |state: &State, args: Rest<Value>| {
            copying(name, state, &args)
        });
    }
    env
}

/// Environment with minijinja's own filters.
fn plain() -> &'static Environment<'static> {
    static PLAIN: OnceLock<Environment<'static>> = OnceLock::new();
    PLAIN.get_or_init(Environment::new)
}

/// Calls a filter that copies what it takes.
fn copying(name: &str, state: &State, args: &[Value]) -> Result<Value, Error> {
    let text = |at: usize| args.get(at).and_then(Value::as_str);
    let (values, kwargs): (&[Value], Kwargs) = from_args(args)?;
    if let Some(keyword) = kwargs.args().next()
        && !WITH_KEYWORDS.contains(&name)
    {
        return Err(invalid(format!(
            "the filter `{name}` takes no keyword argument here, and got `{keyword}`; give it by its position"
        )));
    }
    match name {
        "join" => return join(values, &kwargs),
        "replace" => {
            args.iter().try_for_each(charge_shallow)?;
            if let (Some(value), Some(old), Some(new)) = (text(0), text(1), text(2)) {
                charge_replaced(value, old, new)?;
            }
        }
        "format" => {
            check_widths(text(0).unwrap_or_default())?;
            args.iter().try_for_each(charge_deep)?;
        }
        "indent" => {
            let keyword: Option<Value> = kwargs.get("width")?;
            // The keyword counts where there is no width at its position.
            let (width, keyword) = (
                limits::count(values.get(1))?,
                limits::count(keyword.as_ref())?,
            );
            let width = width.or(keyword).unwrap_or(4);
            let value = text(0).unwrap_or_default();
            charge(value.len() + (value.matches('\n').count() + 1) * width)?;
        }
        "slice" | "batch" => {
            limits::count(values.get(1))?;
            args.iter().try_for_each(charge_shallow)?;
        }
        // The filter of these reads methods and filters of the environment.
        "sort" | "min" | "max" | "sum" | "list" | "unique" => {
            args.iter().try_for_each(charge_shallow)?;
            let value = args.first().cloned().unwrap_or_default();
            match (name, args.len()) {
                ("list", 1) => return filters::list(state, value),
                ("sum", 1) => return filters::sum(state, value),
                ("min", 1) => return filters::min(state, value),
                ("max", 1) => return filters::max(state, value),
                _ => {}
            }
        }
        _ => args.iter().try_for_each(charge_shallow)?,
    }
    let result = plain().empty_state().apply_filter(name, args)?;
    // Some of them put lists into lists.
    check_depth(&result, true).map(|()| result)
}

/// Counts the bytes of a value that is made, and checks its depth.
fn made(value: Value) -> Result<Value, Error> {
    charge_shallow(&value)?;
    check_depth(&value, true).map(|()| value)
}

/// Joins the elements of a list, or an attribute of each, as texts of Python's: `join(value, d="", attribute=None)` of Jinja.
fn join(values: &[Value], kwargs: &Kwargs) -> Result<Value, Error> {
    let argument = |at: usize, name: &str| match values.get(at) {
        Some(value) => Ok(Some(value.clone())),
        None => kwargs.get::<Option<Value>>(name),
    };
    let separator = argument(1, "d")?;
    let attribute = argument(2, "attribute")?.filter(|value| !value.is_none());
    kwargs.assert_all_used()?;
    let (Some(list), true) = (values.first(), values.len() <= 3) else {
        return Err(invalid("join takes a list, a separator and an attribute"));
    };
    let separator = separator.map_or(Ok(String::new()), |value| python::str(&value))?;
    let mut text = String::new();
    for (at, element) in list.try_iter()?.enumerate() {
        charge(separator.len() + 8)?;
        text.push_str(if at > 0 { &separator } else { "" });
        let element = match &attribute {
            Some(path) => attribute_of(element, path)?,
            None => element,
        };
        python::write_str(&mut text, &element)?;
    }
    Ok(Value::from(text))
}

/// Returns what an attribute names: an index, or names and indices with points between them.
fn attribute_of(value: Value, path: &Value) -> Result<Value, Error> {
    let Some(path) = path.as_str() else {
        return value.get_item(path);
    };
    path.split('.')
        .try_fold(value, |value, part| match part.parse::<usize>() {
            Ok(index) => value.get_item_by_index(index),
            Err(_) => value.get_attr(part),
        })
}

/// Checks an operand of `*`: numbers, and a text that is repeated. A list that is repeated has no size that could be counted.
fn factor(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => charge(value.as_str().map_or(0, str::len))?,
        ValueKind::Number | ValueKind::Bool => check_factor(value)?,
        kind => return Err(invalid(format!("{kind} is not multiplied here"))),
    }
    Ok(value.clone())
}

/// Counts a number as a text of its length: it may repeat one.
fn check_factor(value: &Value) -> Result<(), Error> {
    charge(value.as_usize().unwrap_or(0).min(limits::MAX_COUNT))
}

/// Returns the output of a call block between the marks of what the assistant has generated.
fn generation(state: &State, kwargs: Kwargs) -> Result<Value, Error> {
    let caller: Value = kwargs.get("caller")?;
    kwargs.assert_all_used()?;
    let text = caller.call(state, &[])?;
    let Some([open, close]) = MARKS.get() else {
        return Ok(text);
    };
    charge_shallow(&text)?;
    Ok(Value::from(format!("{open}{text}{close}")))
}
