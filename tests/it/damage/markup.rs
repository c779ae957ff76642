//! Pieces of markup that cost a careless parser its stack, its memory or the square of their length. Each is a few
//! megabytes at most; what frames them makes books of them. Must never be well-formed by accident where its name says
//! otherwise.

/// Roughly the size of each piece.
const BIG: usize = 3 << 20;

fn fill(unit: &str) -> String {
    unit.repeat(BIG / unit.len())
}

fn nest(open: &str, text: &str, close: &str) -> String {
    let times = BIG / (open.len() + close.len()).max(1);
    format!("{}{text}{}", open.repeat(times), close.repeat(times))
}

fn attributes() -> String {
    (0..BIG / 9).map(|n| format!(" a{n:x}=''")).collect()
}

/// A tag that hides 300,000 attributes from whoever does not read markup as exactly as the tokenizer does.
fn behind(disguise: &str) -> String {
    let bare: String = (0..BIG / 8).map(|n| format!(" a{n:x}")).collect();
    format!("<p>a<br>{disguise}{bare}>b</b>c")
}

type Piece = (&'static str, fn() -> String);

/// Pieces of a body: elements and text.
pub const BODIES: &[Piece] = &[
    ("deep", || nest("<div>", "x", "</div>")),
    ("deep-unclosed", || fill("<div>x")),
    ("deep-with-attributes", || nest("<div a='1' b=\"2\">", "x", "</div>")),
    ("deep-names", || nest("<a:b.c-d>", "x", "</a:b.c-d>")),
    ("closed-only", || fill("</div>")),
    ("paragraphs-unclosed", || fill("<p>x")),
    ("formatting-unclosed", || fill("<b><i><u><a href='x'>y")),
    ("formatting-misnested", || fill("<b><p><i></b>x</p></i>")),
    ("tables-in-tables", || nest("<table><tr><td>", "x", "</td></tr></table>")),
    ("tables-unclosed", || fill("<table><tr><td>x")),
    ("cells", || format!("<table><tr>{}</table>", fill("<td>x"))),
    ("spans", || format!("<table><tr>{}</table>", fill("<td colspan='4000000000' rowspan='4000000000'>x"))),
    ("lists", || nest("<ul><li>", "x", "</li></ul>")),
    ("select-options", || fill("<select><option>x<optgroup>")),
    ("ruby", || fill("<ruby>漢<rt>かん<rp>(")),
    ("ruby-in-ruby", || nest("<ruby><rt>", "x", "</rt></ruby>")),
    ("superscripts", || nest("<sup><a href='#x'>", "1", "</a></sup>")),
    ("links-unclosed", || fill("<a href='#x'><sup>1")),
    ("headings", || fill("<h1>x</h1>")),
    ("headings-unclosed", || fill("<h1>x")),
    ("headings-empty", || fill("<h1/>")),
    ("headings-in-headings", || nest("<h2>", "x", "</h2>")),
    ("preformatted", || format!("<pre>{}x</pre>", fill("\n"))),
    ("blank-lines", || format!("<p>x{}y</p>", fill(" \n"))),
    ("one-word", || format!("<p>{}</p>", fill("x"))),
    ("combining-marks", || format!("<p>x{}</p>", fill("\u{301}\u{316}"))),
    ("soft-hyphens", || format!("<p>x{}</p>", fill("\u{ad}"))),
    ("right-to-left-marks", || format!("<p>x{}</p>", fill("\u{202e}\u{200f}"))),
    ("hangul", || format!("<p>{}</p>", fill("\u{1100}\u{1161}\u{11a8}"))),
    ("ids", || (0..BIG / 20).map(|n| format!("<i id='a{n}'>x</i>")).collect()),
    ("one-id", || fill("<i id='a'>x</i>")),
    ("attributes", || format!("<p{}>x</p>", attributes())),
    ("attributes-again", || format!("<p{}>x</p>", fill(" a='1'"))),
    ("attribute-of-megabytes", || format!("<p id='{}'>x</p>", fill("y"))),
    ("attribute-of-entities", || format!("<p id='{}'>x</p>", fill("&amp;"))),
    ("attribute-unclosed", || format!("<p>a</p><p id='{}", fill("y>"))),
    ("attributes-unquoted", || format!("<p {}>x</p>", fill("a=b/c "))),
    ("attributes-in-many-tags", || {
        let tag: String = (0..2600).map(|n| format!(" {n:x}")).collect();
        fill(&format!("<p{}>x<br>", &tag[..8100]))
    }),
    ("attributes-behind-a-quoted-end", || behind("<b x='>'")),
    ("attributes-in-an-end-tag", || behind("</b")),
    ("attributes-behind-an-odd-comment", || behind("<!----!><b")),
    ("attributes-behind-an-open-script", || behind("<script><!--<script></script><title>--></script><b")),
    ("attributes-behind-a-false-title", || behind("<title:x><b")),
    ("attributes-behind-a-false-script", || behind("<script x='/>'></script><b")),
    ("attributes-without-an-end", || format!("a<br>x <b{}", attributes())),
    ("tag-of-megabytes", || format!("<{0}>x</{0}>", fill("y"))),
    ("tag-never-closed", || format!("x<{}", fill("y"))),
    ("less-than", || format!("x{}", fill("<"))),
    ("less-than-letter", || format!("x{}", fill("<a"))),
    ("less-than-slash", || format!("x{}", fill("</"))),
    ("ampersands", || format!("x{}", fill("&"))),
    ("ampersand-of-megabytes", || format!("x&{}", fill("a"))),
    ("entities", || fill("&amp;&eacute;&nosuch;")),
    ("references", || fill("&#65;&#x42;&#0;&#xd800;&#x110000;&#99999999999999;")),
    ("reference-of-megabytes", || format!("x&#{};", fill("1"))),
    ("comments", || fill("<!--x-->")),
    ("comments-unclosed", || format!("x{}", fill("<!--"))),
    ("comments-half-closed", || format!("x{}", fill("<!--x--!x"))),
    ("comment-of-dashes", || format!("x<!{}>y", fill("-"))),
    ("declarations", || format!("x{}", fill("<!x"))),
    ("instructions", || format!("x{}", fill("<?x"))),
    ("instructions-closed", || format!("x{}", fill("<?x?>"))),
    ("cdata", || fill("<![CDATA[<b>]]>")),
    ("cdata-unclosed", || format!("x{}", fill("<![CDATA["))),
    ("cdata-half-closed", || format!("x<![CDATA[{}", fill("]]"))),
    ("scripts", || fill("<script>x</script>y")),
    ("scripts-unclosed", || fill("<script>x")),
    ("scripts-escaped", || fill("<script><!--<script>x</script>-->")),
    ("titles-unclosed", || fill("<title>x")),
    ("styles-half-closed", || format!("<style>{}", fill("</styl"))),
    ("textareas", || fill("<textarea>x</textarea >")),
    ("svg-and-math", || nest("<svg><math><annotation-xml>", "x", "</annotation-xml></math></svg>")),
    ("templates", || nest("<template>", "x", "</template>")),
    ("plaintext", || format!("<plaintext>{}", fill("<x>"))),
    ("zeros", || format!("<p>x{}</p>", fill("\0"))),
    ("control-characters", || format!("<p>x{}</p>", fill("\u{1}\u{8}\u{b}\u{7f}\u{85}\u{2028}"))),
    ("line-ends", || format!("<p>x{}</p>", fill("\r\n\r"))),
    ("noncharacters", || format!("<p>x{}</p>", fill("\u{fffe}\u{ffff}\u{1fffe}"))),
    ("data-uri", || format!("<img src='data:image/png;base64,{}'/>x", fill("AAAA"))),
    ("namespaces", || (0..BIG / 40).map(|n| format!("<n{n}:a xmlns:n{n}='{n}'>x</n{n}:a>")).collect()),
    ("namespaces-nested", || (0..BIG / 30).map(|n| format!("<a xmlns:n{n}='{n}'>")).chain(["x".to_owned()]).collect()),
    ("styles-that-hide", || fill("<p style='display:none' hidden>x</p>y")),
];

/// What stands before a document's first element; `&x;` in the body means what it defines.
pub const PROLOGUES: &[Piece] = &[
    ("billion-laughs", || {
        let lols: String =
            (1..10).map(|n| format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10))).collect();
        format!("<?xml version='1.0'?><!DOCTYPE x [<!ENTITY l0 \"lol\">{lols}<!ENTITY x \"&l9;\">]>")
    }),
    ("quadratic-blow-up", || format!("<?xml version='1.0'?><!DOCTYPE x [<!ENTITY x \"{}\">]>", "a".repeat(1 << 20))),
    ("external-file", || "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>".to_owned()),
    ("external-url", || "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY x SYSTEM 'http://127.0.0.1:9/x'>]>".to_owned()),
    ("external-subset", || {
        "<!DOCTYPE x SYSTEM 'file:///etc/passwd' [<!ENTITY % p SYSTEM 'file:///etc/passwd'>%p;]>".into()
    }),
    ("entity-of-itself", || "<!DOCTYPE x [<!ENTITY x '&x;'><!ENTITY y '&x;&y;'>]>".to_owned()),
    ("doctype-of-brackets", || format!("<!DOCTYPE x {}", fill("["))),
    ("doctype-of-quotes", || format!("<!DOCTYPE x [{}]>", fill("<!ENTITY '"))),
    ("doctype-of-declarations", || format!("<!DOCTYPE x [{}]>", fill("<!ENTITY a 'b'>"))),
    ("doctype-unclosed", || format!("<!DOCTYPE x [{}", fill("<!--"))),
    ("declared-utf-16", || "<?xml version='1.0' encoding='UTF-16'?>".to_owned()),
    ("declared-ebcdic", || "<?xml version='1.0' encoding='cp037'?>".to_owned()),
    ("declared-of-megabytes", || format!("<?xml version='1.0' encoding='{}'?>", fill("u"))),
    ("instruction-of-megabytes", || format!("<?xml {}?>", fill("a='b' "))),
    ("marks", || fill("\u{feff}")),
];

/// Bytes that are no text of the encoding around them.
pub const FOREIGN: &[(&str, &[u8])] = &[
    ("invalid-utf-8", b"\xff\xfe\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80\xe2\x82"),
    ("utf-16", b"<\0p\0>\0x\0<\0/\0p\0>\0"),
    ("utf-16-surrogates", b"\xff\xfe\0\xd8\0\xd8\0\xdc"),
    ("utf-32", b"\0\0\xfe\xff\0\0\0<\0\0\0p"),
    ("escapes", b"\x1b$B\x1b(J\x1b$A\x1b\x0e\x0f"),
    ("shift-jis", b"\x81\x5c\x83\x7c\x81\x3c\x94\x3e"),
    ("gb18030", b"\x81\x30\x81\x30\x90\x30\x81\x30\xe3\x32\x9a\x35"),
    ("all", &{
        let mut all = [0; 256];
        let mut at = 0;
        while at < 256 {
            all[at] = at as u8;
            at += 1;
        }
        all
    }),
];
