//! Template sources, rewritten before they are compiled.
//!
//! Extensions of transformers to Jinja, and the count of copied bytes, have no place in minijinja's interface. They are put into the
//! source, without a change of its lines:
//!
//! - `{% generation %}` … `{% endgeneration %}`, the tag by which a template names what the assistant has generated, becomes a call
//!   block of a function that puts marks around its output;
//! - the operands of `~`, `+` and `*` get a filter, which counts the bytes that a hostile template copies, and makes the operands
//!   of `~` texts as Python does;
//! - lists and dictionaries that are written out, and slices, are arguments of a function that counts their bytes and depth;
//! - in a long text between tags, a call counts its bytes.

use super::environment::{COUNT, FACTOR, GENERATION, KEEP, MADE, OPERAND, TEXT};
use super::limits::{MAX_BRANCHES, MAX_PREFIXES, MAX_TOKENS, MAX_UNCOUNTED, SHORT};

/// Rewritten source.
pub(super) struct Rewritten {
    /// The source to compile.
    pub(super) source: String,
    /// True if the template names what the assistant has generated.
    pub(super) has_generation: bool,
    /// Line and reason of something that no template needs, and that the limits do not hold.
    pub(super) refused: Option<(usize, &'static str)>,
}

/// Rewrites a source. A source that is no Jinja is left to the compiler to refuse.
pub(super) fn rewrite(source: &str) -> Rewritten {
    let mut rewriter = Rewriter {
        source,
        out: String::with_capacity(source.len() + source.len() / 4),
        copied: 0,
        has_generation: false,
        branches: 0,
        last_end: 0,
        refused: None,
    };
    rewriter.run();
    Rewritten {
        source: rewriter.out,
        has_generation: rewriter.has_generation,
        refused: rewriter.refused,
    }
}

struct Rewriter<'a> {
    source: &'a str,
    out: String,
    /// Number of bytes of the source that are in the output.
    copied: usize,
    has_generation: bool,
    /// Number of `elif`.
    branches: usize,
    /// End of the last token of the last expression.
    last_end: usize,
    refused: Option<(usize, &'static str)>,
}

/// Token of an expression.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    /// Name, number, or text in quotes.
    Operand(&'a str),
    /// Operator or punctuation.
    Mark(&'a str),
    /// End of the block.
    End,
}

/// Brackets that are open, with the operand that is being read in them.
#[derive(Default)]
struct Level {
    /// Filter for the end of the operand.
    pending: Option<&'static str>,
    /// True if the operand has arithmetic in it, so that a filter at its end would not see the whole.
    is_compound: bool,
    /// End of the last token, if an operand may end there.
    ended: Option<usize>,
    /// Beginning of the operand in the output.
    start: Option<usize>,
}

/// Bracket that is open.
struct Open {
    /// Beginning of the operand in the output, of which it is the first or a later part.
    start: usize,
    /// True for a list or a dictionary that is written out, outside of others.
    is_literal: bool,
    /// True for brackets that are a tuple if there is a comma in them.
    is_group: bool,
    /// True for an index.
    is_index: bool,
    /// True for an index that is a slice.
    is_slice: bool,
}

/// Words that begin no operand.
const WORDS: [&str; 9] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "recursive",
    "set",
];

/// Names of functions of this module's.
const OWN: [&str; 3] = [COUNT, GENERATION, MADE];

impl<'a> Rewriter<'a> {
    fn run(&mut self) {
        // Beginning of the text between tags, and the place to look for the next tag from.
        let (mut text, mut at) = (0, 0);
        while let Some(found) = self.source[at..].find('{') {
            let start = at + found;
            let kind = self.source.as_bytes().get(start + 1).copied();
            if !matches!(kind, Some(b'#' | b'%' | b'{')) {
                at = start + 1;
                continue;
            }
            self.count(text, start);
            at = match kind {
                Some(b'#') => self.after(start + 2, "#}"),
                Some(b'%') => self.tag(start),
                _ => {
                    let is_marked = self.source[start + 2..].starts_with(['-', '+']);
                    self.expression(start + 2 + usize::from(is_marked), "}}")
                }
            };
            text = at;
        }
        self.count(text, self.source.len());
        self.copy_to(self.source.len());
    }

    /// Puts a call into a long text between tags that counts its bytes: before its last visible character, where it changes
    /// nothing of the white space that tags take away.
    fn count(&mut self, from: usize, to: usize) {
        let text = &self.source[from..to];
        if text.len() <= SHORT {
            return;
        }
        let last = text.char_indices().rfind(|(_, c)| !c.is_whitespace());
        match last {
            Some((last, _)) => {
                let call = format!("{{{{{COUNT}({})}}}}", text.len());
                self.replace(from + last, from + last, &call);
            }
            None => self.leave(from, to),
        }
    }

    /// Leaves a text uncounted.
    fn leave(&mut self, from: usize, to: usize) {
        if to - from > MAX_UNCOUNTED {
            self.refuse(
                from,
                "is more white space, or a longer `raw` block, than a template needs",
            );
        }
    }

    /// Refuses the source for what stands at a position.
    fn refuse(&mut self, at: usize, reason: &'static str) {
        if self.refused.is_none() {
            self.refused = Some((1 + self.source[..at].matches('\n').count(), reason));
        }
    }

    /// Returns the position after the next `end`, or the end of the source.
    fn after(&self, from: usize, end: &str) -> usize {
        let found = self.source.get(from..).and_then(|rest| rest.find(end));
        found.map_or(self.source.len(), |found| from + found + end.len())
    }

    /// Copies the source up to a position.
    fn copy_to(&mut self, position: usize) {
        if position > self.copied {
            self.out.push_str(&self.source[self.copied..position]);
            self.copied = position;
        }
    }

    /// Puts a text in place of a part of the source.
    fn replace(&mut self, from: usize, to: usize, text: &str) {
        self.copy_to(from);
        self.out.push_str(text);
        self.copied = to;
    }

    /// Rewrites a tag that begins at `{%`, and returns the position after it.
    fn tag(&mut self, start: usize) -> usize {
        let inner = start + 2;
        let rest = &self.source[inner..];
        let unmarked = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        let trimmed = unmarked.trim_start();
        let name_at = self.source.len() - trimmed.len();
        let name: &str = trimmed
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .unwrap_or_default();
        let name_end = name_at + name.len();
        match name {
            "raw" => {
                // What follows is text up to the tag that ends it.
                let first = self.after(name_end, "%}");
                let mut at = first;
                loop {
                    let Some(found) = self.source[at..].find("{%") else {
                        self.leave(first, self.source.len());
                        return self.source.len();
                    };
                    let tag = at + found + 2;
                    let rest = &self.source[tag..];
                    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start();
                    at = self.after(tag, "%}");
                    if rest.starts_with("endraw") {
                        self.leave(first, tag);
                        return at;
                    }
                }
            }
            "generation" => {
                self.has_generation = true;
                self.replace(name_at, name_end, &format!("call {GENERATION}()"));
                self.after(name_end, "%}")
            }
            "endgeneration" => {
                self.replace(name_at, name_end, "endcall");
                self.after(name_end, "%}")
            }
            "set" => self.assignment(name_end),
            _ => {
                self.branches += usize::from(name == "elif");
                if self.branches > MAX_BRANCHES {
                    self.refuse(start, "has more branches than a template needs");
                }
                self.expression(name_end, "%}")
            }
        }
    }

    /// Rewrites an assignment. One to a member of a namespace is checked, by a filter that reads the namespace: a block of what is generated becomes a closure, into which minijinja takes the variables
    /// that are read in it alone. So an assignment to a member of a namespace reads the namespace, too.
    fn assignment(&mut self, start: usize) -> usize {
        let rest = &self.source[start..];
        let member = rest.split_once('=').and_then(|(target, value)| {
            let (namespace, name) = target.split_once('.')?;
            let is_name = |text: &str| {
                let mut characters = text.chars();
                !text.is_empty() && characters.all(|c| c.is_alphanumeric() || c == '_')
            };
            let names = is_name(namespace.trim()) && is_name(name.trim());
            (names && !value.starts_with('=')).then(|| (namespace.trim(), target.len() + 1))
        });
        let Some((namespace, value)) = member else {
            return self.expression(start, "%}");
        };
        self.replace(start + value, start + value, "(");
        let end = self.expression(start + value, "%}");
        self.copy_to(self.last_end);
        self.out.push_str(&format!(")|{KEEP}({namespace})"));
        end
    }

    /// Rewrites the expressions of a block up to its end, and returns the position after it.
    fn expression(&mut self, start: usize, end: &str) -> usize {
        let mut levels = vec![Level::default()];
        let mut opens: Vec<Open> = Vec::new();
        // Names that are assigned to stand before `in` or `=`.
        let mut is_target = ["for", "set"]
            .iter()
            .any(|tag| self.source[..start].ends_with(tag));
        let mut at = start;
        let (mut tokens, mut prefixes) = (0, 0);
        loop {
            let (token, to) = self.token(at, end, levels.len() == 1);
            self.last_end = if token == Token::End { at } else { to };
            at = to;
            tokens += 1;
            let is_prefix = matches!(token, Token::Mark("-") | Token::Operand("not"));
            prefixes = if is_prefix { prefixes + 1 } else { 0 };
            if tokens > MAX_TOKENS || prefixes > MAX_PREFIXES {
                self.refuse(start, "has a longer expression than a template needs");
            }
            match token {
                Token::End => {
                    while let Some(level) = levels.pop() {
                        self.close(level);
                    }
                    return to;
                }
                Token::Operand(word) => {
                    let Some(level) = levels.last_mut() else {
                        return to;
                    };
                    if WORDS.contains(&word) || level.ended.is_some() {
                        let level = std::mem::take(level);
                        self.close(level);
                    }
                    if let Some(level) = levels.last_mut() {
                        level.ended = (!WORDS.contains(&word)).then_some(to);
                        if level.ended.is_some() && level.start.is_none() {
                            self.copy_to(to - word.len());
                            level.start = Some(self.out.len());
                        }
                    }
                    is_target &= word != "in";
                    if OWN.contains(&word) {
                        self.refuse(start, "has a name that is not free");
                    }
                }
                Token::Mark(bracket @ ("(" | "[" | "{")) => {
                    let Some(level) = levels.last_mut() else {
                        return to;
                    };
                    self.copy_to(to - 1);
                    let is_first = level.ended.is_none();
                    let is_inside = opens.iter().any(|open| open.is_literal);
                    let is_new = is_first && !is_inside && !is_target;
                    opens.push(Open {
                        start: *level.start.get_or_insert(self.out.len()),
                        is_literal: is_new && bracket != "(",
                        is_group: is_new && bracket == "(",
                        is_index: !is_first && bracket == "[",
                        is_slice: false,
                    });
                    levels.push(Level::default());
                }
                Token::Mark(")" | "]" | "}") => {
                    if levels.len() > 1
                        && let Some(level) = levels.pop()
                    {
                        self.close(level);
                    }
                    if let Some(level) = levels.last_mut() {
                        level.ended = Some(to);
                    }
                    if let Some(open) = opens.pop()
                        && (open.is_literal || open.is_slice)
                    {
                        self.copy_to(to);
                        self.out.insert_str(open.start, &format!("{MADE}("));
                        self.out.push(')');
                    }
                }
                // A part of the operand: an attribute, a filter.
                Token::Mark("." | "|") => {
                    if let Some(level) = levels.last_mut() {
                        level.ended = None;
                    }
                }
                Token::Mark(mark) => {
                    if let Some(open) = opens.last_mut() {
                        open.is_slice |= open.is_index && mark == ":";
                        open.is_literal |= open.is_group && mark == ",";
                    }
                    is_target &= mark != "=";
                    let Some(level) = levels.last_mut() else {
                        return to;
                    };
                    let was = std::mem::take(level);
                    let is_arithmetic = matches!(mark, "+" | "-" | "*" | "/" | "//" | "%" | "**");
                    let filter = match mark {
                        "~" => Some(TEXT),
                        "+" => Some(OPERAND),
                        "*" => Some(FACTOR),
                        _ => None,
                    };
                    level.is_compound = is_arithmetic;
                    level.pending = filter;
                    // The operand on the left gets the filter, too.
                    let left = Level {
                        pending: was.pending.or(filter),
                        is_compound: was.is_compound || is_arithmetic,
                        ended: was.ended,
                        start: None,
                    };
                    self.close(left);
                }
            }
        }
    }

    /// Puts the pending filter behind an operand that ends.
    fn close(&mut self, level: Level) {
        let (Some(filter), Some(ended)) = (level.pending, level.ended) else {
            return;
        };
        // A part of a sum is not made a text.
        let filter = if filter == TEXT && level.is_compound {
            OPERAND
        } else {
            filter
        };
        self.copy_to(ended);
        self.out.push('|');
        self.out.push_str(filter);
    }

    /// Reads the token at a position: the token and its end.
    fn token(&self, at: usize, end: &str, is_outside: bool) -> (Token<'a>, usize) {
        let rest = &self.source[at..];
        let from = self.source.len() - rest.trim_start().len();
        let rest = &self.source[from..];
        let Some(first) = rest.chars().next() else {
            return (Token::End, from);
        };
        let ends = |text: &str| text.starts_with(end);
        if is_outside && ends(rest) {
            return (Token::End, from + end.len());
        }
        if is_outside && matches!(first, '-' | '+') && ends(&rest[1..]) {
            return (Token::End, from + 1 + end.len());
        }
        let length = match first {
            '\'' | '"' => {
                let mut escaped = false;
                let close = rest.char_indices().skip(1).find(|&(_, c)| {
                    let closes = c == first && !escaped;
                    escaped = c == '\\' && !escaped;
                    closes
                });
                close.map_or(rest.len(), |(at, _)| at + 1)
            }
            c if c.is_alphanumeric() || c == '_' => rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len()),
            _ => {
                const LONG: [&str; 6] = ["//", "**", "==", "!=", "<=", ">="];
                let long = LONG.iter().find(|long| rest.starts_with(**long));
                let length = long.map_or(first.len_utf8(), |long| long.len());
                return (Token::Mark(&rest[..length]), from + length);
            }
        };
        (Token::Operand(&rest[..length]), from + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(rewrite(source).source, expected);
    }

    #[test]
    fn the_tag_of_what_is_generated_becomes_a_call_block() {
        check(
            "{%- generation -%}a{%-endgeneration%}",
            "{%- call generation__() -%}a{%-endcall%}",
        );
        assert!(rewrite("{% generation %}{% endgeneration %}").has_generation);
        for other in [
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{% endraw %}",
            "{{ '{% generation %}' }}",
            "generation",
            "{% if generation %}{% endif %}",
        ] {
            check(other, other);
            assert!(!rewrite(other).has_generation, "{other}");
        }
    }

    #[test]
    fn operands_of_concatenations_are_filtered() {
        check("{{ a ~ b }}", "{{ a|text__ ~ b|text__ }}");
        check("{{- a ~ b.c[0] -}}", "{{- a|text__ ~ b.c[0]|text__ -}}");
        check(
            "{{ a + f(b, c)+'}}' }}",
            "{{ a|operand__ + f(b, c)|operand__+'}}'|operand__ }}",
        );
        check(
            "{% set x = a ~ (b + 1)|trim if c else d %}",
            "{% set x = a|text__ ~ (b|operand__ + 1|operand__)|trim|text__ if c else d %}",
        );
        check(
            "{% if a ~ b in c and not d %}",
            "{% if a|text__ ~ b|text__ in c and not d %}",
        );
        check("{% for (a, b) in c %}", "{% for (a, b) in c %}");
        check("{% set x = (a, (b)) %}", "{% set x = made__((a, (b))) %}");
        check("{{ [1] * n }}", "{{ made__([1])|factor__ * n|factor__ }}");
        check(
            "{{ {'a': {'b': c ~ d}} }}",
            "{{ made__({'a': {'b': c|text__ ~ d|text__}}) }}",
        );
        check(
            "{{ 1 + 2 ~ 3 }}",
            "{{ 1|operand__ + 2|operand__ ~ 3|text__ }}",
        );
        check("{%+ if a +%}x{% endif %}", "{%+ if a +%}x{% endif %}");
        check(
            "{{ a[1:] }} + {{ '~' }} ~",
            "{{ made__(a[1:]) }} + {{ '~' }} ~",
        );
        check(
            "{% for x in a.b(c)[i][:-1][0].d if [1][0] ~ e[:2] %}",
            "{% for x in made__(a.b(c)[i][:-1])[0].d if made__([1])[0]|text__ ~ made__(e[:2])|text__ %}",
        );
        check(
            "{{ a -1 }}{{ -b ~ c }}",
            "{{ a -1 }}{{ -b|operand__ ~ c|text__ }}",
        );
    }

    #[test]
    fn what_is_generated_may_assign_to_a_namespace() {
        let set = "{%- set ns.a = b ~ c if d else 1 -%}";
        check(
            set,
            "{%- set ns.a =( b|text__ ~ c|text__ if d else 1)|keep__(ns) -%}",
        );
        check(
            &format!(
                "{{% generation %}}{set}{{% set e = 1 %}}{{% endgeneration %}}{{% set b.a=1%}}"
            ),
            "{% call generation__() %}{%- set ns.a =( b|text__ ~ c|text__ if d else 1)|keep__(ns) -%}{% set e = 1 %}{% endcall %}\
             {% set b.a=(1)|keep__(b)%}",
        );
    }

    #[test]
    fn long_texts_are_counted_before_their_last_character() {
        let long = "x".repeat(40);
        check(
            &format!("{{% if a %}}\n {long}y\n  {{% endif %}}"),
            &format!("{{% if a %}}\n {long}{{{{count__(46)}}}}y\n  {{% endif %}}"),
        );
        assert_eq!(rewrite(&"\n ".repeat(100)).refused, None);
        let blank = rewrite(&format!("a\n{{{{ b }}}}{}", " ".repeat(300)));
        assert_eq!(blank.refused.unwrap().0, 2);
        let raw = format!("{{% raw %}}{long}{{% endraw %}}");
        assert_eq!(rewrite(&raw).refused, None);
        check(&raw, &raw);
    }

    #[test]
    fn a_source_that_ends_early_is_copied() {
        for source in [
            "{{ a ~",
            "{% raw %}",
            "{% ",
            "{{ 'a",
            "{#",
            "{",
            "{{ ) ~ (",
            "",
        ] {
            let rewritten = rewrite(source).source;
            let plain = rewritten.replace("|text__", "");
            assert_eq!(plain, source);
        }
    }
}
