//! Passwords that somebody has written into the file in spite of all: it is refused, and no report shows
//! them. On the text itself, since there may be no tree where the syntax is broken.

use std::ops::Range;

/// The text with the value of each key that ends in `password` replaced by as many asterisks as it has
/// bytes, so that places stay the same.
pub(super) fn passwords(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for (at, word) in text.match_indices("password") {
        if at < done {
            continue;
        }
        if let Some(value) = value_after(text, at + word.len()) {
            masked.push_str(&text[done..value.start]);
            masked.extend(text[value.clone()].bytes().map(|byte| match byte {
                b'\n' => '\n',
                _ => '*',
            }));
            done = value.end;
        }
    }
    masked.push_str(&text[done..]);
    masked
}

/// The value of the key that ends at `at`: what follows the equals sign.
fn value_after(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = text[at..].trim_start_matches(['"', '\'', ' ', '\t']);
    let rest = rest.strip_prefix('=')?.trim_start_matches([' ', '\t']);
    let start = text.len() - rest.len();
    let quotes = ["\"\"\"", "'''", "\"", "'"];
    let quote = quotes.into_iter().find(|quote| rest.starts_with(quote));
    let length = match quote {
        None => rest.find([',', '}', '\n']).unwrap_or(rest.len()),
        Some(quote) => quoted_length(rest, quote),
    };
    Some(start..start + length)
}

/// The length of a string with its quotes; of one that does not end, up to where it had to.
fn quoted_length(text: &str, quote: &str) -> usize {
    let has_escapes = quote.starts_with('"');
    let is_long = quote.len() == 3;
    let mut at = quote.len();
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(quote) {
            return at + quote.len();
        }
        let mut signs = rest.chars();
        match signs.next() {
            Some('\n') if !is_long => return at,
            Some('\\') if has_escapes => {
                at += 1 + signs
                    .next()
                    .filter(|next| *next != '\n')
                    .map_or(0, char::len_utf8);
            }
            Some(sign) => at += sign.len_utf8(),
            None => return at,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_value_goes_and_the_rest_stays_where_it_is() {
        let cases = [
            (
                "password = \"hunter2\" # x\nport = 1",
                "password = ********* # x\nport = 1",
            ),
            ("password='a\"b'\n", "password=*****\n"),
            (
                "\"password\" = \"a\\\"b\", x = 1",
                "\"password\" = ******, x = 1",
            ),
            (
                "{ password = secret, x = 1 }",
                "{ password = ******, x = 1 }",
            ),
            ("password = \"\"\"a\nb\"\"\"\nx", "password = ****\n****\nx"),
            ("password = \"open\nx = 1", "password = *****\nx = 1"),
            ("password = \"ä\"", "password = ****"),
            ("db_password = 7", "db_password = *"),
            ("password_file = \"/etc/x\"", "password_file = \"/etc/x\""),
            ("# a password\nx = 1", "# a password\nx = 1"),
            ("password", "password"),
            ("password =", "password ="),
        ];
        for (text, expected) in cases {
            assert_eq!(passwords(text), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_keeps_its_length_and_lines(text in "(password|[ =\"'\\\\\n,{}aé#]){0,40}") {
            let masked = passwords(&text);
            prop_assert_eq!(masked.len(), text.len());
            prop_assert_eq!(masked.matches('\n').count(), text.matches('\n').count());
        }
    }
}
