//! Small whole books of every format, made by hand: what the mutations start from. Must never need a file or a program.

use super::archives::{self, Files};
use super::{kindle, pdf};

/// A book to damage.
#[derive(Debug, Clone)]
pub struct Seed {
    pub name: String,
    pub format: &'static str,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub enum Content {
    Bytes(Vec<u8>),
    /// Files of a ZIP archive.
    Archive(Files),
}

impl Seed {
    pub fn new(name: impl Into<String>, format: &'static str, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), format, content: Content::Bytes(bytes) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        match &self.content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Archive(files) => archives::zip(files),
        }
    }
}

const CONTAINER: &str = r#"<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"#;

const OPF: &str = r##"<?xml version="1.0" encoding="UTF-8"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:opf="http://www.idpf.org/2007/opf"><dc:identifier id="id">urn:x</dc:identifier><dc:title id="t">Šuma &amp; more</dc:title><dc:creator id="c" opf:role="aut">A. Author</dc:creator><meta refines="#c" property="role" scheme="marc:relators">aut</meta><dc:language>hr</dc:language></metadata>
<manifest><item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/><item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/><item id="b" href="b%20c.xhtml#x" media-type="application/xhtml+xml"/></manifest>
<spine toc="ncx"><itemref idref="a"/><itemref idref="b"/><itemref idref="nav" linear="no"/></spine></package>"##;

const NCX: &str = r#"<?xml version="1.0"?><ncx xmlns="http://www.daisy.org/z3986/2005/ncx/" version="2005-1"><navMap><navPoint id="1" playOrder="1"><navLabel><text>One</text></navLabel><content src="a.xhtml"/><navPoint id="2"><navLabel><text>One point one</text></navLabel><content src="a.xhtml#s"/></navPoint></navPoint><navPoint id="3"><navLabel><text>Two</text></navLabel><content src="b%20c.xhtml#x"/></navPoint></navMap></ncx>"#;

const NAV: &str = r#"<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><body><nav epub:type="toc"><ol><li><a href="a.xhtml">One</a><ol><li><a href="a.xhtml#s">One point one</a></li></ol></li><li><a href="b c.xhtml">Two</a></li></ol></nav></body></html>"#;

pub const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml" xml:lang="hr"><head><title>Page</title><style>p { color: red }</style></head><body><h1>One</h1><p>Prva <b>reče</b>nica&nbsp;i <i>druga</i>.</p><h2 id="s">Inner</h2><table><tr><td>a</td><td>b</td></tr></table><ul><li>x<ul><li>y</li></ul></li></ul><pre>c
  d</pre><ruby>漢<rt>かん</rt></ruby><p>text<a href="b%20c.xhtml#x">link</a><sup>1</sup><br/>end</p></body></html>"#;

const FB2: &str = r##"<?xml version="1.0" encoding="UTF-8"?><FictionBook xmlns="http://www.gribuser.ru/xml/fictionbook/2.0" xmlns:l="http://www.w3.org/1999/xlink"><stylesheet>p {}</stylesheet><description><title-info><genre>x</genre><author><first-name>A</first-name><last-name>B</last-name><nickname>n</nickname></author><book-title>Title</book-title><lang>ru</lang></title-info></description><body><title><p>Book</p></title><section><title><p>One</p><p>1</p></title><epigraph><p>e</p></epigraph><p>Текст <strong>важный</strong><a l:href="#n" type="note">1</a></p><poem><stanza><v>line</v><v>other</v></stanza></poem><section><p><strong>Bold</strong></p><p>x</p><table><tr><td>a</td><td>b</td></tr></table></section></section></body><body name="notes"><section id="n"><title><p>1</p></title><p>Note</p></section></body><binary id="i" content-type="image/png">AAAA</binary></FictionBook>"##;

const DOCUMENT: &str = r#"<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:pPr><w:pStyle w:val="Own"/></w:pPr><w:r><w:t>Heading</w:t></w:r></w:p><w:p><w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r><w:r><w:t xml:space="preserve">shown </w:t><w:tab/><w:sym w:font="s" w:char="2014"/><w:footnoteReference w:id="1"/></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p><w:tbl><w:tr><w:tc><w:tcPr><w:gridSpan w:val="2"/></w:tcPr><w:p><w:r><w:t>cell</w:t></w:r></w:p></w:tc></w:tr></w:tbl><w:p><w:pPr><w:outlineLvl w:val="1"/></w:pPr><w:r><w:fldChar w:fldCharType="begin"/><w:instrText>HYPERLINK</w:instrText><w:fldChar w:fldCharType="separate"/><w:t>field</w:t><w:fldChar w:fldCharType="end"/></w:r></w:p></w:body></w:document>"#;

const STYLES: &str = r#"<w:styles xmlns:w="w"><w:style w:type="paragraph" w:styleId="H"><w:name w:val="heading 1"/></w:style><w:style w:type="paragraph" w:styleId="Own"><w:name w:val="Mine"/><w:basedOn w:val="H"/><w:pPr><w:outlineLvl w:val="2"/></w:pPr></w:style></w:styles>"#;

const FOOTNOTES: &str = r#"<w:footnotes xmlns:w="w"><w:footnote w:type="separator" w:id="0"><w:p><w:r><w:t>no</w:t></w:r></w:p></w:footnote><w:footnote w:id="1"><w:p><w:r><w:t>Note</w:t></w:r></w:p></w:footnote></w:footnotes>"#;

const RELATIONS: &str = r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/><Relationship Id="2" Type="http://x/core-properties" Target="docProps/core.xml"/></Relationships>"#;

const PART_RELATIONS: &str = r#"<Relationships><Relationship Id="1" Type="http://x/styles" Target="styles.xml"/><Relationship Id="2" Type="http://x/footnotes" Target="/word/footnotes.xml"/></Relationships>"#;

const CORE: &str =
    "<c xmlns:dc='d'><dc:title>T</dc:title><dc:creator>A; B</dc:creator><dc:language>en</dc:language></c>";

const CONTENT: &str = r#"<?xml version="1.0" encoding="UTF-8"?><office:document-content xmlns:office="o" xmlns:text="t" xmlns:table="b" xmlns:draw="d" xmlns:svg="s"><office:automatic-styles/><office:body><office:text><text:tracked-changes><text:deletion><text:p>gone</text:p></text:deletion></text:tracked-changes><text:h text:outline-level="1">One</text:h><text:p>a<text:s text:c="3"/>b<text:tab/>c<text:line-break/>d<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>Note</text:p></text:note-body></text:note></text:p><text:list><text:list-item><text:p>x</text:p></text:list-item></text:list><table:table><table:table-column table:number-columns-repeated="3"/><table:table-row table:number-rows-repeated="2"><table:table-cell table:number-columns-repeated="2"><text:p>1</text:p></table:table-cell></table:table-row></table:table><text:p><draw:frame><draw:text-box><text:p>box</text:p></draw:text-box><svg:title>no</svg:title></draw:frame>after</text:p></office:text></office:body></office:document-content>"#;

pub const RTF: &str = "{\\rtf1\\ansi\\ansicpg1250\\deff0{\\fonttbl{\\f0\\fcharset238 Times;}{\\f1\\fcharset204 B;}}{\\stylesheet{\\s0 Normal;}{\\s1\\outlinelevel0 heading 1;}}{\\info{\\title T}{\\author A; B}}\\pard\\s1 One\\par\\pard\\s0 a\\u353?uma \\'9auma{\\f1\\'cc\\'e8\\'f0}\\par{\\field{\\*\\fldinst HYPERLINK x}{\\fldrslt link}}{\\footnote\\pard note\\par}\\trowd\\cellx1\\pard\\intbl a\\cell b\\cell\\row\\pard{\\pict\\bin4 }}}}00}\\upr{x}{\\*\\ud{y}}{\\b deep{\\i deeper}}\\line end\\par}";

const MARKDOWN: &str = "---\ntitle: x\n---\n# One\n\nText *em **strong*** `code` [link](x \"t\") ![i](y)\n\n> quote\n> > deeper\n\n- a\n  - b\n    1. c\n\n| a | b |\n|---|---|\n| c | d |\n\n```\ncode\n```\n\n[^1]: note\n\n## Two {#id}\n\n<div>html</div> text[^1] ~~gone~~ [ref]\n\n[ref]: http://x\n";

fn files(list: &[(&str, &str)]) -> Files {
    list.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

/// The files of a small whole book of a format that is an archive.
pub fn archive(format: &str) -> Files {
    match format {
        "EPUB" | "KEPUB" => files(&[
            ("mimetype", "application/epub+zip"),
            ("META-INF/container.xml", CONTAINER),
            ("OEBPS/content.opf", OPF),
            ("OEBPS/toc.ncx", NCX),
            ("OEBPS/nav.xhtml", NAV),
            ("OEBPS/a.xhtml", PAGE),
            ("OEBPS/b c.xhtml", "<html><body><p id='x'>Second <span>page</span> &lt;here&gt;"),
        ]),
        "DOCX" => files(&[
            ("[Content_Types].xml", "<Types/>"),
            ("_rels/.rels", RELATIONS),
            ("word/document.xml", DOCUMENT),
            ("word/_rels/document.xml.rels", PART_RELATIONS),
            ("word/styles.xml", STYLES),
            ("word/footnotes.xml", FOOTNOTES),
            ("docProps/core.xml", CORE),
        ]),
        "ODT" => files(&[
            ("mimetype", "application/vnd.oasis.opendocument.text"),
            ("content.xml", CONTENT),
            ("meta.xml", CORE),
            ("META-INF/manifest.xml", "<m:manifest xmlns:m='m'><m:file-entry/></m:manifest>"),
        ]),
        "FBZ" | "FB2" => files(&[("b.fb2", FB2)]),
        "HTMLZ" => files(&[
            ("index.html", PAGE),
            ("metadata.opf", "<package xmlns:dc='d'><metadata><dc:title>T</dc:title></metadata><guide/></package>"),
            ("style.css", "p {}"),
        ]),
        "ZIP" => files(&[
            ("x/index.html", "<title>i</title><a href='z.html#q'>z</a><a href='p10.htm'>p</a>index"),
            ("x/p10.htm", PAGE),
            ("x/p9.htm", "<h1>nine</h1><a href='index.html'>up</a>"),
            ("x/z.html", "<frameset><frame src='p9.htm'></frameset>last"),
        ]),
        other => panic!("{other} is no archive"),
    }
}

/// A book of every format.
pub fn all() -> Vec<Seed> {
    let mut all: Vec<Seed> = ["EPUB", "KEPUB", "DOCX", "ODT", "FBZ", "HTMLZ", "ZIP"]
        .into_iter()
        .map(|format| Seed { name: "small".to_owned(), format, content: Content::Archive(archive(format)) })
        .collect();
    let text = "Prva rečenica. Вторая строка.\r\n\r\nDritte Zeile mit Wörtern.\u{c}漢字かな\tend\n".repeat(4);
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let bytes: Vec<(&str, &'static str, Vec<u8>)> = vec![
        ("small", "FB2", FB2.into()),
        ("small", "RTF", RTF.into()),
        ("small", "HTML", PAGE.into()),
        (
            "unclosed",
            "HTML",
            "<html lang=de><head><title>T<body><h1>Eins<p>a<p>b<script>x<b>c</script><ul><li>d".into(),
        ),
        ("small", "XHTML", PAGE.into()),
        ("small", "HTM", [b"<meta charset=iso-8859-2>".as_slice(), b"<p>\xb9uma"].concat()),
        ("utf-8", "TXT", text.clone().into()),
        ("utf-16", "TXT", [b"\xff\xfe".to_vec(), utf16(&text)].concat()),
        ("utf-16-bare", "TEXT", utf16(&text)),
        ("windows-1251", "TXT", (0xc0..=0xffu8).flat_map(|byte| [byte, byte, b' ']).collect()),
        ("shift-jis", "TXT", b"\x82\xb1\x82\xf1\x82\xc9\x82\xbf\x82\xcd\n\x90\xa2\x8a\x45 ".repeat(9)),
        ("iso-2022-jp", "TXT", b"\x1b$B$3$s$K$A$O\x1b(B end\n".repeat(9)),
        ("small", "MD", MARKDOWN.into()),
        ("small", "MARKDOWN", MARKDOWN.into()),
        ("plain", "MOBI", kindle::book(1)),
        ("palmdoc", "MOBI", kindle::book(2)),
        ("huffcdic", "AZW", kindle::book(17480)),
        ("kf8", "AZW3", kindle::kf8()),
        ("palmdoc-text", "PRC", kindle::palmdoc_text()),
        ("small", "PDF", pdf::small()),
        ("deflated", "PDF", pdf::with_object_stream()),
    ];
    all.extend(bytes.into_iter().map(|(name, format, bytes)| Seed::new(name, format, bytes)));
    all
}
