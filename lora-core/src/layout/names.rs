//! Comparison of dotted paths.

/// Returns true if `path` is `name` or ends in `.name`.
pub(crate) fn ends_in(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Returns the path of the module that a parameter or module is directly in.
pub(crate) fn module_of(path: &str) -> Option<&str> {
    Some(path.rsplit_once('.')?.0)
}

/// Returns true if a parameter is at any depth in a module whose path is `entry` or ends in it.
pub(crate) fn is_inside(parameter: &str, entry: &str) -> bool {
    let mut module = module_of(parameter);
    while let Some(path) = module {
        if ends_in(path, entry) {
            return true;
        }
        module = module_of(path);
    }
    false
}
