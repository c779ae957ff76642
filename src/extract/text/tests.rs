//! Small pages of markup, each with one thing that tears, glues or hides words.

use super::super::markup;
use super::*;

fn page(html: &str) -> PageText {
    page_with(html, &[])
}

fn page_with(html: &str, wanted: &[&str]) -> PageText {
    let wanted = wanted.iter().map(|id| (*id).to_owned()).collect();
    markup::parse(html, || TextBuilder::new(&wanted)).finish()
}

fn text(html: &str) -> String {
    page(html).text
}

#[test]
fn inline_tags_do_not_tear_words_and_blocks_do_not_glue() {
    assert_eq!(
        text("<p><b>w</b>ord <i> a</i>\n b</p><p>c</p>d<div>e<div>f</div></div>"),
        "word a b\n\nc\n\nd\n\ne\n\nf"
    );
    assert_eq!(text("<p>one<br/>two<br/><br/>three</p>"), "one\ntwo\n\nthree");
    assert_eq!(text("<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"), "a\nb\nc");
    assert_eq!(text("<table><tr><td>a</td><td>b</td></tr><tr><th>c</th><th>d</th></tr></table>"), "a\tb\nc\td");
    assert_eq!(text("<dl><dt>a</dt><dd>b</dd></dl>"), "a\nb");
}

#[test]
fn preformatted_text_keeps_its_lines() {
    assert_eq!(text("<p>a</p><pre>\n  x  y\n z\n\n\nw</pre>b\nc"), "a\n\nx y\nz\n\nw\n\nb c");
}

#[test]
fn what_is_not_shown_is_not_text() {
    let html = "<html lang=\"hr\"><head><title>T \n t</title><style>s</style><meta name='author' content='A'/></head>\
                <body>a<script>b</script><template>c<template>d</template>e</template><noscript><p>f</p></noscript>\
                <img alt='g'/><svg><title>h</title><text>i</text></svg></body></html>";
    for html in [html.to_owned(), html.replace("<body>", "<body><br>")] {
        let page = page(&html);
        assert_eq!(page.text, "a\n\ni");
        assert_eq!(page.title.as_deref(), Some("T t"));
        assert_eq!(page.author.as_deref(), Some("A"));
        assert_eq!(page.language.as_deref(), Some("hr"));
    }
}

#[test]
fn invisible_characters_go_and_spaces_become_plain() {
    assert_eq!(text("<p>so\u{ad}ft&nbsp;a\u{feff}b\u{2060}c&shy;d\u{3000}e \u{ad} f</p>"), "soft abcd e f");
}

#[test]
fn self_closed_elements_hide_nothing() {
    assert_eq!(text("<html><head><title/><script src='x'/></head><body><a id='y'/>a<p/>b<br></body></html>"), "a\n\nb");
    assert_eq!(text("<html><head><title/></head><body><style/><p>a</p></body></html>"), "a");
}

#[test]
fn an_unclosed_head_hides_nothing() {
    assert_eq!(text("<head><title>t</title><p>a<p>b"), "a\n\nb");
}

#[test]
fn ruby_readings_follow_their_base() {
    assert_eq!(text("<p>は<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp>字<rt>じ</rt></ruby>を</p>"), "は漢字(かんじ)を");
    assert_eq!(text("<p><ruby>漢<rp>(<rt>かん<rp>)</ruby>を<br>x"), "漢(かん)を\nx");
}

#[test]
fn anchors_stand_at_their_elements() {
    let html =
        "<p>one</p><p id='a'>two <a name='b'></a>three</p><h2>Head <span id='c'>x</span></h2><p>y</p><i id='d'/>";
    let page = page_with(html, &["a", "b", "c", "d", "zz"]);
    let rest = |id: &str| page.text[page.anchors[id]..].trim_start();
    assert!(rest("a").starts_with("two") && rest("b").starts_with("three") && rest("c").starts_with("Head x"));
    assert_eq!((rest("d"), page.anchors.len()), ("", 4));
    assert_eq!(page.headings.len(), 1);
    assert_eq!(page.text[page.headings[0].range.clone()].trim(), "Head x");
}

#[test]
fn headings_without_text_are_none() {
    assert_eq!(page("<h1/><h2> </h2><p>a</p><h3>b</h3>").headings.len(), 1);
}

#[test]
fn depth_costs_nothing() {
    let depth = 100_000;
    let xml = format!("{}x{}", "<div>".repeat(depth), "</div>".repeat(depth));
    assert_eq!(text(&xml), "x");
    assert_eq!(text(&format!("{}x<br>y", "<div><b>".repeat(depth))), "x\ny");
}

#[test]
fn footnote_marks_do_not_glue_to_words() {
    for mark in [
        "<a epub:type='noteref' href='#n'>1</a>",
        "<sup><a href='#n'>1</a></sup>",
        "<a href='#n'><sup>[1]</sup></a>",
        "<sup class='x'><a href='#n'>*</a></sup>",
        "<sup><a filepos=0001>a</a></sup>",
        "<a role='doc-noteref' href='#n'><span>[</span>12<span>]</span></a>",
        " <a class='footnote-reference brackets' href='#n'>9</a>",
    ] {
        assert_eq!(text(&format!("<p>a word{mark} and the end{mark}.</p>")), "a word and the end.", "{mark}");
        assert_eq!(text(&format!("<p>漢字{mark}は</p>")).replace(' ', ""), "漢字は", "{mark}");
    }
    assert_eq!(text("<p>A word<sup>1</sup> and the end.<sup>2</sup> Next</p>"), "A word 1 and the end. 2 Next");
    assert_eq!(text("<p>A word<a href='#n'>[1]</a> goes <a href='#n'>on</a>.</p>"), "A word [1] goes on.");
    assert_eq!(text("<p>a <a epub:type='noteref' href='#n'>long word</a> stays</p>"), "a long word stays");
    assert_eq!(text("<p>one<sup><a href='#n'>1</a></sup>two</p>"), "one two");
}

#[test]
fn raised_text_that_is_no_mark_stays() {
    assert_eq!(text("E = mc<sup>2</sup>, 10<sup>6</sup> km<sup>2</sup>"), "E = mc², 10⁶ km²");
    assert_eq!(text("10<sup>th</sup> M<sup>me</sup> H<sub>2</sub>O x<sup>n+1</sup>"), "10th Mme H2O xn+1");
    assert_eq!(text("<sup>1</sup>/<sub>2</sub> cup"), "1/2 cup");
    assert_eq!(
        text("<p><sup>1</sup>In the <b>b</b><sup>long raised text <i>x</i></sup></p>"),
        "1 In the blong raised text x"
    );
    assert_eq!(
        text("(<a href='#e'>3</a>) p. 12,<a href='#p'>13</a> Fig. 1.<a href='#f'>2</a>"),
        "(3) p. 12,13 Fig. 1.2"
    );
}

#[test]
fn notes_keep_their_number() {
    let note = "<div><p><a href='#r' class='para'><sup class='para'>[1] </sup></a> In the</p></div>";
    assert_eq!(text(note), "[1] In the");
    assert_eq!(text("<p>a</p><p><sup><a href='#r'>1</a></sup>In the</p>"), "a\n\n1 In the");
}

#[test]
fn unended_and_nested_marks_lose_nothing() {
    assert_eq!(text("<p>a<sup>1<p>b<br>c"), "a1\n\nb\nc");
    assert_eq!(text("<p>a<a href=x>1<a href=y>2</a> c<br>d"), "a12 c\nd");
    assert_eq!(text("<p>a<sup><sup>1"), "a1");
    assert_eq!(text("<p>a<a href=x><sup>1</a></sup> b<br>"), "a b");
}

#[test]
fn rows_read_as_rows() {
    let rows = "<table><tr><td></td><th><p>a</p></th><td><div>b</div><div>c</div></td></tr>\n\
        <tr> <td> <p>d</p> </td> <td/> <td><ul><li>e</li><li>f</li></ul></td></tr></table><p>g</p>";
    assert_eq!(text(rows), "a\tb\n\nc\nd\te\nf\n\ng");
    assert_eq!(text("<table><tr><td>a<td><p>b<tr><td>c<td></table>d<br>"), "a\tb\nc\n\nd");
    assert_eq!(
        text("<table><tr><td><table><tr><td>a</td><td>b</td></tr></table></td><td>c</td></tr></table>"),
        "a\tb\n\nc"
    );
}

#[test]
fn drawings_and_formulas_are_read() {
    let svg = "<p>a<svg><title>t</title><desc>d</desc><text>b</text><text>c<tspan>d</tspan></text></svg></p>";
    assert_eq!(text(svg), "a\n\nb\ncd");
    let formula = "<math><mfrac><mn>1</mn><mi>x</mi></mfrac><annotation>no</annotation></math>";
    assert_eq!(text(&format!("<p>where {formula}, and</p>")), "where 1 x , and");
    assert_eq!(text("<p>a</p><math display='block'><mi>x</mi></math>b"), "a\n\nx b");
}

#[test]
fn hidden_elements_are_not_text_but_notes_and_headings_are() {
    let html = "<p hidden='hidden'>no</p><h1 style='display: none'>Head</h1><div style='color:red; display : none'>no<div>no</div>\
        </div><aside hidden='' epub:type='footnote'>note</aside><span hidden='until-found'>found</span>";
    assert_eq!(text(html), "Head\n\nnote\n\nfound");
    assert_eq!(
        text(&format!("{}<br>x", html.replace("<p ", "<i ").replace("</p>", "</i>"))),
        "Head\n\nnote\n\nfound\nx"
    );
    assert_eq!(text("<p hidden>a<p>b<br>"), "a\n\nb");
}

#[test]
fn lines_of_verse_and_stanzas_are_kept() {
    assert_eq!(text("<p>one<br/>\u{a0}\u{a0}two<br/>\n<br/>three</p>"), "one\ntwo\n\nthree");
    assert_eq!(
        text("<h2>One<br/>Two</h2><p><span class='dropcap'>O</span>nce <i>up</i><wbr/>on</p>"),
        "One\nTwo\n\nOnce upon"
    );
}

#[test]
fn entities_comments_and_cdata_are_read() {
    assert_eq!(text("<p>a&mdash;b&hellip;<!-- no -->&#8203;c<![CDATA[ <d> ]]>&copy;&zwnj;e</p>"), "a—b…c <d> ©e");
}

#[test]
fn runs_of_ascii_end_where_they_should() {
    let slow = |text: &str| {
        let bytes = text.as_bytes();
        let in_run = |at: usize| {
            let visible = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_graphic);
            visible(at) || (at > 0 && bytes[at] == b' ' && visible(at - 1) && visible(at + 1))
        };
        (0..bytes.len()).take_while(|at| in_run(*at)).count()
    };
    for text in [
        "",
        " ",
        " a",
        "a ",
        "a",
        "a b c d e f g h",
        "abcdefg hijklmn opq",
        "abcdefgh ijk  l",
        "abcdefg  hij",
        "abcdefg ",
        "abcdefgh ",
    ] {
        for end in ["", "\n", "\u{e9}", "\u{7f}", " ", "  x", "\t!", " !a!  "] {
            let text = format!("{text}{end}");
            assert_eq!(ascii_run(text.as_bytes()), slow(&text), "{text:?}");
        }
    }
}
