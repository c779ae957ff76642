//! The little markup that the manual's texts are written in, as roff: paragraphs, `literals`, terms with their
//! explanation, and blocks that are shown as they are. It must never lose a character of a text.
//!
//! Blocks are separated by blank lines. One that begins with `= ` is a term (further `= ` lines: more terms) and its
//! explanation; one of lines that are indented by two spaces is shown as it is; any other is a paragraph.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Appends a text.
pub(super) fn render(roff: &mut Roff, text: &str) {
    for block in text.split("\n\n").map(|block| block.trim_matches('\n')).filter(|block| !block.trim().is_empty()) {
        let lines: Vec<&str> = block.lines().collect();
        if block.starts_with("= ") {
            let terms: Vec<&str> = lines.iter().map_while(|line| line.strip_prefix("= ")).collect();
            entry(
                roff,
                &terms.iter().map(|term| vec![bold(*term)]).collect::<Vec<_>>(),
                &lines[terms.len()..].join(" "),
            );
        } else if lines.iter().all(|line| line.starts_with("  ")) {
            literal(roff, lines.iter().map(|line| &line[2..]));
        } else {
            roff.control("PP", []);
            roff.text(inlines(&lines.join(" ")));
        }
    }
}

/// Terms (each as it is set) and their explanation.
pub(super) fn entry(roff: &mut Roff, terms: &[Vec<Inline>], explanation: &str) {
    for (number, term) in terms.iter().enumerate() {
        roff.control(if number == 0 { "TP" } else { "TQ" }, []);
        roff.text(term.clone());
    }
    roff.text(inlines(explanation));
}

/// Lines as they are, indented.
pub(super) fn literal<'a>(roff: &mut Roff, lines: impl IntoIterator<Item = &'a str>) {
    roff.control("PP", []);
    roff.control("RS", ["4"]);
    roff.control("nf", []);
    for line in lines {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.control("RE", []);
}

/// A paragraph's text, with what is between backticks in bold.
pub(super) fn inlines(text: &str) -> Vec<Inline> {
    let pieces = text.split('`').enumerate();
    let set = pieces.filter(|(_, piece)| !piece.is_empty());
    set.map(|(number, piece)| if number % 2 == 1 { bold(piece) } else { roman(piece) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_block_is_set_as_what_it_is() {
        let mut roff = Roff::new();
        render(&mut roff, "One `two`\nthree.\n\n= SIGTERM\n= SIGINT\nEnds\nit.\n\n  literal --line\n  .second\n");
        let text = roff.render();
        let expected = ".PP\nOne \\fBtwo\\fR three.\n.TP\n\\fBSIGTERM\\fR\n.TQ\n\\fBSIGINT\\fR\nEnds it.\n.PP\n.RS 4\n.nf\n\
                        literal \\-\\-line\n\\&.second\n.fi\n.RE\n";
        assert!(text.ends_with(expected), "{text}");
    }
}
