//! PDF files byte by byte: circles of every kind, lengths that lie, and bombs. Must never need a PDF library: those write
//! proper files.
//!
//! Format: ISO 32000-2:2020; the numbers below are its clauses.

use super::archives::bomb;
use super::{Recipe, recipe};

/// A file of these objects, the first of which is the catalogue; the cross-reference table is right.
pub fn file(objects: &[Vec<u8>]) -> Vec<u8> {
    file_with(objects, "")
}

fn file_with(objects: &[Vec<u8>], trailer: &str) -> Vec<u8> {
    let mut out = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n".to_vec();
    let mut places = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        places.push(out.len());
        out.extend_from_slice(format!("{} 0 obj\n", number + 1).as_bytes());
        out.extend_from_slice(object);
        out.extend_from_slice(b"\nendobj\n");
    }
    let start = out.len();
    out.extend_from_slice(format!("xref\n0 {}\n0000000000 65535 f \n", places.len() + 1).as_bytes());
    places.iter().for_each(|place| out.extend_from_slice(format!("{place:010} 00000 n \n").as_bytes()));
    let size = places.len() + 1;
    out.extend_from_slice(
        format!("trailer\n<</Size {size}/Root 1 0 R{trailer}>>\nstartxref\n{start}\n%%EOF\n").as_bytes(),
    );
    out
}

fn stream(dictionary: &str, data: &[u8]) -> Vec<u8> {
    let head = format!("<<{dictionary}/Length {}>>\nstream\n", data.len());
    [head.as_bytes(), data, b"\nendstream"].concat()
}

/// Zlib around a deflated stream; the checksum is wrong.
fn zlib(deflated: Vec<u8>) -> Vec<u8> {
    [vec![0x78, 0x9c], deflated, vec![0; 4]].concat()
}

/// Zlib around stored blocks.
fn zlib_stored(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks = data.chunks(0xffff).count();
    for (at, block) in data.chunks(0xffff).enumerate() {
        let length = block.len() as u16;
        out.push(u8::from(at + 1 == blocks));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    let (a, b) = data.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (a + b) % 65521)
    });
    out.extend_from_slice(&(b << 16 | a).to_be_bytes());
    out
}

const TEXT: &str = "BT /F1 12 Tf 72 700 Td (Some words of text) Tj 0 -14 Td [(more) -300 (words) 20 (here)] TJ ET";
const FONT: &str = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>";

fn objects(extra: &[&str]) -> Vec<Vec<u8>> {
    let mut list: Vec<Vec<u8>> = vec![
        format!("<</Type/Catalog/Pages 2 0 R{}>>", extra.first().unwrap_or(&"")).into_bytes(),
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>".to_vec(),
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>".to_vec(),
        stream("", TEXT.as_bytes()),
        FONT.into(),
    ];
    list.extend(extra.iter().skip(1).map(|object| object.as_bytes().to_vec()));
    list
}

/// The objects of a page of text with an outline.
fn small_objects() -> Vec<Vec<u8>> {
    objects(&[
        "/Outlines 6 0 R/Lang(en)",
        "<</Type/Outlines/First 7 0 R/Last 7 0 R/Count 1>>",
        "<</Title(Chapter)/Parent 6 0 R/Dest[3 0 R/XYZ 0 700 0]>>",
        "<</Title(T)/Author<FEFF0160>>>",
    ])
}

/// A page of text with an outline.
pub fn small() -> Vec<u8> {
    file_with(&small_objects(), "/Info 8 0 R")
}

/// The same page with its catalogue in an object stream and a cross-reference stream (7.5.7, 7.5.8).
pub fn with_object_stream() -> Vec<u8> {
    let inner = ["<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1>>"];
    let table = format!("1 0 2 {} ", inner[0].len() + 1);
    let packed = zlib_stored(format!("{table}{} {}", inner[0], inner[1]).as_bytes());
    let mut out = b"%PDF-1.7\n".to_vec();
    let mut places = [0usize; 8];
    let parts: [(usize, Vec<u8>); 4] = [
        (3, objects(&[])[2].clone()),
        (4, stream("/Filter/FlateDecode", &zlib_stored(TEXT.as_bytes()))),
        (5, FONT.into()),
        (6, stream(&format!("/Type/ObjStm/N 2/First {}/Filter/FlateDecode", table.len()), &packed)),
    ];
    for (number, object) in parts {
        places[number] = out.len();
        out.extend_from_slice(&[format!("{number} 0 obj\n").as_bytes(), &object, b"\nendobj\n"].concat());
    }
    places[7] = out.len();
    let mut rows = vec![0u8, 0, 0, 0, 2, 0, 6, 0, 2, 0, 6, 1];
    places[3..].iter().for_each(|place| rows.extend_from_slice(&[1, (place >> 8) as u8, *place as u8, 0]));
    let table = stream("/Type/XRef/Size 8/W[1 2 1]/Root 1 0 R", &rows);
    out.extend_from_slice(&[b"7 0 obj\n".as_slice(), &table, b"\nendobj\n"].concat());
    out.extend_from_slice(format!("startxref\n{}\n%%EOF\n", places[7]).as_bytes());
    out
}

/// A page whose content is `data`, with these resources and objects behind it.
fn page(filter: &str, data: &[u8], resources: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let mut list = objects(&[]);
    list[2] = format!(
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>{resources}>>>>"
    )
    .into_bytes();
    list[3] = stream(filter, data);
    list.extend_from_slice(more);
    file(&list)
}

fn outline(items: &[&str]) -> Vec<u8> {
    let mut all = vec!["/Outlines 6 0 R"];
    all.extend_from_slice(items);
    file(&objects(&all))
}

fn pages(objects_from_2: &[&str]) -> Vec<u8> {
    let mut list = vec![b"<</Type/Catalog/Pages 2 0 R>>".to_vec()];
    list.extend(objects_from_2.iter().map(|object| object.as_bytes().to_vec()));
    file(&list)
}

/// The small file with something else in one of its objects, whose places stay right; else in its tables.
fn replaced(from: &str, to: &str) -> Vec<u8> {
    let put = |bytes: &[u8]| {
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes())?;
        Some([&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat())
    };
    let mut objects = small_objects();
    for object in &mut objects {
        if let Some(changed) = put(object) {
            *object = changed;
            return file_with(&objects, "/Info 8 0 R");
        }
    }
    put(&small()).expect("it is in the small file")
}

fn map(body: &str) -> Vec<u8> {
    composite(body, "/W[0[500]1 3 600]")
}

/// A page in a font of two bytes a letter, with this map to Unicode and these widths.
fn composite(body: &str, widths: &str) -> Vec<u8> {
    let font = "<</Type/Font/Subtype/Type0/BaseFont/X/Encoding/Identity-H/DescendantFonts[8 0 R]/ToUnicode 7 0 R>>";
    let mut list = objects(&[]);
    list[3] = stream("", b"BT /F1 12 Tf <000100020003> Tj ET");
    list[4] = font.into();
    list.push(b"null".to_vec());
    list.push(stream("", format!("/CIDInit/ProcSet findresource begin begincmap {body} endcmap end").as_bytes()));
    list.push(format!("<</Type/Font/Subtype/CIDFontType2/BaseFont/X/DW 1000{widths}>>").into_bytes());
    file(&list)
}

type Attack = (&'static str, fn() -> Vec<u8>);

const ATTACKS: &[Attack] = &[
    ("outline-of-itself", || outline(&["<</First 6 0 R/Last 6 0 R>>"])),
    ("outline-next-is-itself", || outline(&["<</First 7 0 R>>", "<</Title(x)/Next 7 0 R/Dest[3 0 R/Fit]>>"])),
    ("outline-child-is-its-parent", || outline(&["<</First 7 0 R>>", "<</Title(x)/First 6 0 R/Next 7 0 R>>"])),
    ("outline-two-in-a-circle", || {
        outline(&["<</First 7 0 R>>", "<</Title(a)/Next 8 0 R/First 8 0 R>>", "<</Title(b)/Next 7 0 R/First 7 0 R>>"])
    }),
    ("outline-exponential", || {
        // Each item is the child and the next of the one before it.
        let items: Vec<String> =
            (0..60).map(|n| format!("<</Title(x)/First {0} 0 R/Next {0} 0 R/Dest[3 0 R/Fit]>>", n + 8)).collect();
        let mut all = vec!["<</First 7 0 R>>"];
        all.extend(items.iter().map(String::as_str));
        outline(&all)
    }),
    ("outline-deep", || {
        let items: Vec<String> = (0..50_000).map(|n| format!("<</Title(x)/First {} 0 R>>", n + 8)).collect();
        let mut all = vec!["<</First 7 0 R>>"];
        all.extend(items.iter().map(String::as_str));
        outline(&all)
    }),
    ("outline-long", || {
        let items: Vec<String> =
            (0..50_000).map(|n| format!("<</Title(x)/Next {} 0 R/Dest[3 0 R/XYZ 0 700 0]>>", n + 8)).collect();
        let mut all = vec!["<</First 7 0 R>>"];
        all.extend(items.iter().map(String::as_str));
        outline(&all)
    }),
    ("outline-destinations-in-a-circle", || {
        outline(&["<</First 7 0 R>>", "<</Title(x)/Dest 8 0 R>>", "<</D 9 0 R>>", "<</D 8 0 R>>"])
    }),
    ("names-in-a-circle", || {
        file(&objects(&[
            "/Outlines 6 0 R/Names<</Dests 8 0 R>>",
            "<</First 7 0 R>>",
            "<</Title(x)/Dest(n)>>",
            "<</Kids[8 0 R 9 0 R]>>",
            "<</Kids[8 0 R]/Names[(n) 9 0 R]>>",
        ]))
    }),
    ("pages-of-itself", || pages(&["<</Type/Pages/Kids[2 0 R]/Count 1>>"])),
    ("pages-in-a-circle", || {
        pages(&["<</Type/Pages/Kids[3 0 R 3 0 R]/Count 4>>", "<</Type/Pages/Kids[2 0 R 2 0 R]/Parent 2 0 R/Count 4>>"])
    }),
    ("pages-exponential", || {
        let nodes: Vec<String> =
            (2..50).map(|n| format!("<</Type/Pages/Kids[{0} 0 R {0} 0 R]/Count 2>>", n + 1)).collect();
        let mut all: Vec<&str> = nodes.iter().map(String::as_str).collect();
        all.push("<</Type/Page/MediaBox[0 0 9 9]>>");
        pages(&all)
    }),
    ("pages-deep", || {
        let nodes: Vec<String> = (2..60_000).map(|n| format!("<</Type/Pages/Kids[{} 0 R]/Count 1>>", n + 1)).collect();
        let mut all: Vec<&str> = nodes.iter().map(String::as_str).collect();
        all.push("<</Type/Page/MediaBox[0 0 9 9]>>");
        pages(&all)
    }),
    ("pages-same-page-100000-times", || {
        let kids = "3 0 R ".repeat(100_000);
        replaced("/Kids[3 0 R]/Count 1", &format!("/Kids[{kids}]/Count 100000"))
    }),
    ("pages-parent-circle", || replaced("/Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]", "/Type/Page/Parent 3 0 R")),
    ("pages-count-of-billions", || replaced("/Count 1>>", "/Count 2147483647>>")),
    ("pages-count-negative", || replaced("/Count 1>>", "/Count -1>>")),
    ("kids-are-no-pages", || replaced("/Kids[3 0 R]", "/Kids[5 0 R 1 0 R null (x) [2 0 R] 99 0 R]")),
    ("form-of-itself", || {
        page(
            "",
            b"/X Do",
            "/XObject<</X 6 0 R>>",
            &[stream(
                "/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 6 0 R>>/Font<</F1 5 0 R>>>>",
                format!("{TEXT} /X Do /X Do").as_bytes(),
            )],
        )
    }),
    ("forms-exponential", || {
        let forms: Vec<Vec<u8>> = (6..40)
            .map(|n| {
                let next = n + 1;
                stream(
                    &format!("/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X {next} 0 R>>/Font<</F1 5 0 R>>>>"),
                    format!("{TEXT} /X Do /X Do").as_bytes(),
                )
            })
            .collect();
        page("", b"/X Do", "/XObject<</X 6 0 R>>", &forms)
    }),
    ("forms-deep", || {
        let forms: Vec<Vec<u8>> = (6..20_000)
            .map(|n| {
                let next = n + 1;
                stream(&format!("/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X {next} 0 R>>>>"), b"/X Do")
            })
            .collect();
        page("", b"/X Do", "/XObject<</X 6 0 R>>", &forms)
    }),
    ("form-drawn-a-million-times", || {
        let form = stream("/Subtype/Form/BBox[0 0 9 9]/Resources<</Font<</F1 5 0 R>>>>", TEXT.repeat(20).as_bytes());
        page("", &b"/X Do ".repeat(500_000), "/XObject<</X 6 0 R>>", &[form])
    }),
    ("flate-bomb", || page("/Filter/FlateDecode", &zlib(bomb(b' ', 4 << 30)), "", &[])),
    ("flate-bomb-of-operators", || page("/Filter/FlateDecode", &zlib(bomb(b'q', 1 << 30)), "", &[])),
    ("flate-bomb-in-a-bomb", || page("/Filter[/FlateDecode/FlateDecode]", &zlib(bomb(b'x', 1 << 30)), "", &[])),
    ("filters-a-thousand", || {
        page(&format!("/Filter[{}]", "/FlateDecode".repeat(1000)), &zlib_stored(TEXT.as_bytes()), "", &[])
    }),
    ("filter-unknown", || page("/Filter/Nonsense", TEXT.as_bytes(), "", &[])),
    ("lzw-noise", || page("/Filter/LZWDecode", &[0x80, 0x0b, 0x60, 0x50, 0xff, 0xff, 0x01].repeat(100_000), "", &[])),
    ("ascii85-noise", || page("/Filter/ASCII85Decode", &b"zzzz!!uuuuu~".repeat(200_000), "", &[])),
    ("run-length-bomb", || page("/Filter/RunLengthDecode", &[0x81, b' '].repeat(1_000_000), "", &[])),
    ("predictor-of-billions", || {
        page(
            "/Filter/FlateDecode/DecodeParms<</Predictor 12/Columns 2147483647/Colors 32/BitsPerComponent 16>>",
            &zlib_stored(TEXT.as_bytes()),
            "",
            &[],
        )
    }),
    ("predictor-negative", || {
        page("/Filter/FlateDecode/DecodeParms<</Predictor 12/Columns -1>>", &zlib_stored(TEXT.as_bytes()), "", &[])
    }),
    ("length-of-billions", || {
        let length = format!("/Length {}", TEXT.len());
        replaced(&length, "/Length 99999999999")
    }),
    ("length-negative", || replaced(&format!("/Length {}", TEXT.len()), "/Length -5")),
    ("length-of-itself", || replaced(&format!("/Length {}", TEXT.len()), "/Length 4 0 R")),
    ("stream-never-ends", || {
        let bytes = small();
        let at = bytes.windows(9).position(|part| part == b"endstream").unwrap_or(0);
        bytes[..at].to_vec()
    }),
    ("arrays-deep", || replaced("[0 0 612 792]", &"[".repeat(2 << 20))),
    ("arrays-deep-and-closed", || {
        replaced("[0 0 612 792]", &format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20)))
    }),
    ("dictionaries-deep", || {
        replaced("[0 0 612 792]", &format!("{}1{}", "<</A".repeat(1 << 19), ">>".repeat(1 << 19)))
    }),
    ("strings-deep", || replaced("(Chapter)", &format!("{}{}", "(".repeat(1 << 20), ")".repeat(1 << 20)))),
    ("string-never-ends", || replaced("(Chapter)", &format!("({}", "\\(".repeat(1 << 20)))),
    ("content-arrays-deep", || page("", &b"[".repeat(2 << 20), "", &[])),
    ("content-dictionaries-deep", || page("", &b"<</A ".repeat(1 << 19), "", &[])),
    ("content-strings-deep", || page("", &b"(".repeat(2 << 20), "", &[])),
    ("content-states-deep", || page("", &[b"q ".repeat(1 << 20), TEXT.into()].concat(), "", &[])),
    ("content-restores", || page("", &[b"Q ".repeat(1 << 20), TEXT.into()].concat(), "", &[])),
    ("content-marks-deep", || {
        page("", &[b"/Span<</ActualText(x)>>BDC ".repeat(100_000), TEXT.into()].concat(), "", &[])
    }),
    ("content-operands", || page("", &b"1 ".repeat(1 << 20), "", &[])),
    ("content-huge-numbers", || {
        page("", &b"BT /F1 1e308 Tf 99999999999999999999 -1e999 Td (x) Tj ET ".repeat(30_000), "", &[])
    }),
    ("content-not-a-number", || {
        page("", &b"BT /F1 0 Tf 0 0 0 0 0 0 Tm (x) Tj .-.- Tw --5 Tc (y) Tj ET ".repeat(30_000), "", &[])
    }),
    ("content-letters-one-by-one", || page("", &b"BT /F1 12 Tf 72 700 Td (x) Tj ET ".repeat(100_000), "", &[])),
    ("content-letters-on-one-spot", || {
        page(
            "",
            &[b"BT /F1 12 Tf 72 700 Td ".to_vec(), b"(x)Tj 0 0 Td ".repeat(200_000), b"ET".to_vec()].concat(),
            "",
            &[],
        )
    }),
    ("content-scattered", || {
        let words: String = (0..60_000u64)
            .map(|n| format!("BT /F1 8 Tf {} {} Td (w{n}) Tj ET ", n * 7919 % 600, n * 104_729 % 780))
            .collect();
        page("", words.as_bytes(), "", &[])
    }),
    ("content-inline-image-never-ends", || {
        page("", &[b"BI /W 9 /H 9 ID ".to_vec(), vec![b'x'; 1 << 20]].concat(), "", &[])
    }),
    ("content-inline-images", || page("", &b"BI /W 1 /H 1 ID xEI ".repeat(100_000), "", &[])),
    ("contents-array-of-one-stream", || {
        replaced("/Contents 4 0 R", &format!("/Contents[{}]", "4 0 R ".repeat(100_000)))
    }),
    ("contents-of-itself", || replaced("/Contents 4 0 R", "/Contents 3 0 R")),
    ("resources-in-a-circle", || replaced("/Resources<<", "/Resources 3 0 R/Old<<")),
    ("font-of-itself", || {
        replaced(FONT, "<</Type/Font/Subtype/Type0/DescendantFonts[5 0 R]/Encoding 5 0 R/ToUnicode 5 0 R>>")
    }),
    ("font-without-anything", || replaced(FONT, "<<>>")),
    ("font-differences-flood", || {
        let names = "/a".repeat(500_000);
        replaced(FONT, &format!("<</Type/Font/Subtype/Type1/BaseFont/X/Encoding<</Differences[255{names} -1/x]>>>>"))
    }),
    ("font-widths-of-billions", || {
        replaced(FONT, "<</Type/Font/Subtype/Type1/BaseFont/X/FirstChar -2147483648/LastChar 2147483647/Widths[1 2]>>")
    }),
    ("widths-of-four-billion-letters", || composite("", "/W[0[500]1 4000000000 600]")),
    ("widths-of-four-billion-vertical-letters", || composite("", "/W2[0 4000000000 1 2 3]")),
    ("widths-of-all-letters-again-and-again", || composite("", &format!("/W[{}]", "0 65535 1 ".repeat(50_000)))),
    ("map-ranges-of-everything", || map(&"1 beginbfrange <0000> <FFFFFFFF> <0041> endbfrange ".repeat(2000))),
    ("map-ranges-of-16-bits", || map(&"1 beginbfrange <0000> <FFFF> <0041> endbfrange ".repeat(5000))),
    ("map-cid-ranges", || map(&"1 begincidrange <00000000> <FFFFFFFF> 0 endcidrange ".repeat(2000))),
    ("map-long-targets", || map(&format!("1 beginbfrange <0000> <FFFF> <{}> endbfrange", "0041".repeat(20_000)))),
    ("map-backwards", || map("1 beginbfrange <FFFF> <0000> <0041> endbfrange 1 beginbfchar <01> <D800> endbfchar")),
    ("map-uses-itself", || map("/X usecmap 7 0 R usecmap")),
    ("map-unclosed", || map(&"1 beginbfrange <00".repeat(50_000))),
    ("xref-of-itself", || file_with(&objects(&[]), "/Prev 9")),
    ("xref-previous-is-itself", || {
        let bytes = small();
        let start = bytes.windows(4).position(|part| part == b"xref").unwrap_or(0);
        let text = format!("/Prev {start}/Size");
        let at = bytes.windows(5).position(|part| part == b"/Size").unwrap_or(0);
        [&bytes[..at], text.as_bytes(), &bytes[at + 5..]].concat()
    }),
    ("xref-count-of-billions", || replaced("0000000000 65535 f", "0 4000000000\n0000000000 65535 f")),
    ("xref-places-outside", || {
        let text = String::from_utf8_lossy(&small()[20..]).replace(" 00000 n", "9 00000 n");
        [b"%PDF-1.7\n".as_slice(), text.as_bytes()].concat()
    }),
    ("xref-missing", || {
        let bytes = small();
        let at = bytes.windows(5).position(|part| part == b"xref\n").unwrap_or(0);
        [&bytes[..at], b"trailer<</Root 1 0 R>>"].concat()
    }),
    ("xref-start-of-billions", || [&small()[..], b"startxref\n99999999999999999999\n%%EOF"].concat()),
    ("xref-stream-widths-of-billions", || {
        let table = stream("/Type/XRef/Size 2147483647/W[2147483647 2147483647 2147483647]/Root 1 0 R", b"xxxx");
        let bytes = [b"%PDF-1.7\n7 0 obj\n".as_slice(), &table, b"\nendobj\n"].concat();
        [&bytes[..], b"startxref\n9\n%%EOF\n"].concat()
    }),
    ("object-stream-of-itself", || {
        let inner = stream("/Type/ObjStm/N 1000000000/First 2147483647/Extends 6 0 R", b"6 0 6 0 6 0");
        let mut list = objects(&[]);
        list.push(inner);
        file(&list)
    }),
    ("objects-100000-with-one-number", || {
        let mut bytes = b"%PDF-1.7\n".to_vec();
        bytes.extend_from_slice(&b"1 0 obj<</Type/Catalog/Pages 1 0 R>>endobj\n".repeat(100_000));
        [&bytes[..], b"trailer<</Root 1 0 R>>"].concat()
    }),
    ("objects-nested", || [b"%PDF-1.7\n".as_slice(), &b"1 0 obj ".repeat(300_000)].concat()),
    ("references-in-a-circle", || replaced("/Kids[3 0 R]", "/Kids 8 0 R/X 8 0 R")),
    ("trailers", || {
        [b"%PDF-1.7\n".as_slice(), &b"trailer<</Root 1 0 R/Prev 9>>startxref\n9\n%%EOF\n".repeat(80_000)].concat()
    }),
    ("header-only", || b"%PDF-1.7\n".to_vec()),
    ("header-far-behind", || [vec![b'x'; 2 << 20], small()].concat()),
    ("comments", || [b"%PDF-1.7\n".as_slice(), &b"%\n".repeat(1 << 20), &small()[..]].concat()),
    ("names-with-escapes", || replaced("/Lang(en)", &format!("/{} 1", "#41#00#zz".repeat(200_000)))),
    ("encrypted", || file_with(&objects(&[]), "/Encrypt<</Filter/Standard/V 1/R 2/O(x)/U(y)/P -4>>/ID[(a)(b)]")),
    ("encrypted-length-of-billions", || {
        file_with(&objects(&[]), "/Encrypt<</Filter/Standard/V 5/R 6/Length 2147483647/O()/U()/P 0>>/ID[]")
    }),
    ("encrypted-by-itself", || file_with(&objects(&[]), "/Encrypt 1 0 R")),
    ("structure-in-a-circle", || {
        file(&objects(&[
            "/StructTreeRoot 6 0 R/MarkInfo<</Marked true>>",
            "<</K 7 0 R>>",
            "<</S/P/P 7 0 R/K[6 0 R 7 0 R 0]>>",
        ]))
    }),
    ("title-of-megabytes", || replaced("(T)", &format!("({})", "\u{160}".repeat(1 << 20)))),
    ("box-of-nothing", || replaced("[0 0 612 792]", "[0 0 0 0]/Rotate 45/UserUnit -1")),
    ("box-of-billions", || replaced("[0 0 612 792]", "[-1e30 -1e30 1e30 1e30]/Rotate 99999999999")),
];

pub fn recipes() -> Vec<Recipe> {
    ATTACKS.iter().map(|(name, make)| recipe(format!("pdf-{name}"), "PDF", make)).collect()
}
