//! EPUB's, DOCX's and ODT's own circles, floods and monstrous counts: what well-formed markup can still do. Must never
//! hold more than a few megabytes in its archive.

use super::archives::packed;
use super::seeds::archive;
use super::{Recipe, recipe};

/// The small book with other contents of some of its files, and new files.
fn with(format: &str, changes: &[(&str, String)]) -> Vec<u8> {
    let mut files = archive(format);
    for (name, content) in changes {
        match files.iter_mut().find(|(own, _)| own == name) {
            Some((_, bytes)) => *bytes = content.clone().into_bytes(),
            None => files.push(((*name).to_owned(), content.clone().into_bytes())),
        }
    }
    packed(&files)
}

fn ncx(points: String) -> Vec<u8> {
    with("EPUB", &[("OEBPS/toc.ncx", format!("<ncx><navMap>{points}</navMap></ncx>"))])
}

fn nav(list: String) -> Vec<u8> {
    with("EPUB", &[("OEBPS/nav.xhtml", format!("<html><body><nav epub:type='toc'>{list}</nav></body></html>"))])
}

fn opf(metadata: &str, manifest: &str, spine: &str) -> Vec<u8> {
    let opf = format!(
        "<package xmlns:dc='d'><metadata><dc:title>T</dc:title>{metadata}</metadata><manifest>\
        <item id='a' href='a.xhtml' media-type='application/xhtml+xml'/>{manifest}</manifest><spine><itemref idref='a'/>\
        {spine}</spine></package>"
    );
    with("EPUB", &[("OEBPS/content.opf", opf)])
}

fn document(body: String) -> Vec<u8> {
    let text = format!("<w:document><w:body><w:p><w:r><w:t>word</w:t></w:r></w:p>{body}</w:body></w:document>");
    with("DOCX", &[("word/document.xml", text)])
}

fn styled(styles: String, paragraphs: usize) -> Vec<u8> {
    let paragraph = "<w:p><w:pPr><w:pStyle w:val='s0'/></w:pPr><w:r><w:t>x</w:t></w:r></w:p>";
    let body = format!("<w:document><w:body>{}</w:body></w:document>", paragraph.repeat(paragraphs));
    with("DOCX", &[("word/styles.xml", format!("<w:styles>{styles}</w:styles>")), ("word/document.xml", body)])
}

fn content(body: String) -> Vec<u8> {
    with("ODT", &[("content.xml", format!("<o><office:body><text:p>word</text:p>{body}</office:body></o>"))])
}

const POINT: &str = "<navPoint><navLabel><text>x</text></navLabel><content src='a.xhtml#s'/></navPoint>";

type Attack = (&'static str, &'static str, fn() -> Vec<u8>);

const ATTACKS: &[Attack] = &[
    ("EPUB", "ncx-million-entries-at-one-anchor", || ncx(POINT.repeat(600_000))),
    ("EPUB", "ncx-deep", || ncx(format!("{}{}", "<navPoint>".repeat(400_000), "</navPoint>".repeat(400_000)))),
    ("EPUB", "ncx-bare-entries", || ncx("<navPoint/>".repeat(5_000_000))),
    ("EPUB", "ncx-of-itself", || ncx("<navPoint><content src='toc.ncx#1'/></navPoint>".repeat(1000))),
    ("EPUB", "ncx-label-of-megabytes", || ncx(POINT.replace('x', &"x".repeat(3 << 20)))),
    ("EPUB", "ncx-many-anchors", || ncx((0..300_000).map(|n| POINT.replace("#s", &format!("#{n}"))).collect())),
    ("EPUB", "anchors-in-one-long-word", || {
        let points = (0..50_000).map(|n| POINT.replace("#s", &format!("#a{n}"))).collect::<String>();
        let page = (0..50_000).map(|n| format!("<i id='a{n}'>字字字字字字字</i>")).collect::<String>();
        with(
            "EPUB",
            &[
                ("OEBPS/toc.ncx", format!("<ncx><navMap>{points}</navMap></ncx>")),
                ("OEBPS/a.xhtml", format!("<html><body>{page}</body></html>")),
            ],
        )
    }),
    ("EPUB", "nav-bare-links", || nav("<a/>".repeat(10_000_000))),
    ("EPUB", "navs", || nav("</nav><nav>".repeat(1_000_000))),
    ("EPUB", "nav-deep-lists", || nav(format!("{}<a href='a.xhtml'>x</a>", "<ol><li>".repeat(400_000)))),
    ("EPUB", "links-in-a-folder-with-a-long-name", || {
        let folder = "a/".repeat(32_000);
        let mut files = archive("EPUB");
        let container = format!("<container><rootfile full-path='{folder}c.opf'/></container>");
        let itemrefs = "<itemref idref='a'/>".repeat(1000);
        let items: String = (0..100_000).map(|n| format!("<item id='i{n}' href='x' properties='nav'/>")).collect();
        let opf = format!(
            "<package><manifest><item id='a' href='a.xhtml'/>{items}</manifest><spine>{itemrefs}</spine></package>"
        );
        files[1].1 = container.into_bytes();
        files.push((format!("{folder}c.opf"), opf.into_bytes()));
        files.push((format!("{folder}a.xhtml"), b"<html><body>x</body></html>".to_vec()));
        super::archives::write(&super::archives::entries(&files))
    }),
    ("EPUB", "opf-bare-items", || opf("", &"<item/>".repeat(8_000_000), "")),
    ("EPUB", "opf-bare-itemrefs", || opf("", "", &"<itemref/>".repeat(6_000_000))),
    ("EPUB", "opf-one-page-a-million-times", || opf("", "", &"<itemref idref='a'/>".repeat(1_000_000))),
    ("EPUB", "opf-items-of-one-id", || opf("", &"<item id='a' href='x'/>".repeat(1_000_000), "")),
    ("EPUB", "opf-many-elements", || opf(&"<x/>".repeat(15_000_000), "", "")),
    ("EPUB", "opf-many-titles", || opf(&"<dc:title>x</dc:title>".repeat(500_000), "", "")),
    ("EPUB", "opf-many-creators", || opf(&"<dc:creator id='c'>x</dc:creator>".repeat(200_000), "", "")),
    ("EPUB", "opf-many-refinements", || {
        let creators: String = (0..40_000).map(|n| format!("<dc:creator id='c{n}'>x</dc:creator>")).collect();
        let metas: String = (0..40_000).map(|n| format!("<meta refines='#c{n}' property='role'>aut</meta>")).collect();
        opf(&format!("{creators}{metas}"), "", "")
    }),
    ("EPUB", "opf-refinements-of-one", || {
        opf(
            &format!(
                "<dc:creator id='c'>x</dc:creator>{}",
                "<meta refines='#c' property='role'>x</meta>".repeat(100_000)
            ),
            "",
            "",
        )
    }),
    ("EPUB", "opf-refines-itself", || {
        opf("<meta id='a' refines='#b' property='x'>y</meta><meta id='b' refines='#a' property='x'>y</meta>", "", "")
    }),
    ("EPUB", "opf-fallback-circle", || {
        opf("", "<item id='b' href='x' fallback='c'/><item id='c' href='y' fallback='b'/>", "<itemref idref='b'/>")
    }),
    ("EPUB", "encryption-of-everything", || {
        let all = "<EncryptedData><CipherReference URI='x'/></EncryptedData>".repeat(300_000);
        with("EPUB", &[("META-INF/encryption.xml", format!("<encryption>{all}</encryption>"))])
    }),
    ("EPUB", "container-of-a-million-roots", || {
        with("EPUB", &[("META-INF/container.xml", format!("<c>{}</c>", "<rootfile full-path='x'/>".repeat(1_000_000)))])
    }),
    ("EPUB", "container-of-itself", || {
        with("EPUB", &[("META-INF/container.xml", "<c><rootfile full-path='META-INF/container.xml'/></c>".to_owned())])
    }),
    ("ZIP", "links-each-to-each", || {
        let links: String = (0..3000).map(|n| format!("<a href='{n}.html'>x</a>")).collect();
        packed(&(0..100).map(|n| (format!("{n}.html"), links.clone().into_bytes())).collect())
    }),
    ("HTMLZ", "metadata-of-millions", || {
        with(
            "HTMLZ",
            &[("metadata.opf", format!("<package>{}</package>", "<dc:creator>x</dc:creator>".repeat(500_000)))],
        )
    }),
    ("DOCX", "style-of-itself", || styled("<w:style w:styleId='s0'><w:basedOn w:val='s0'/></w:style>".into(), 20_000)),
    ("DOCX", "styles-in-a-circle", || {
        let style =
            |n: usize| format!("<w:style w:styleId='s{n}'><w:basedOn w:val='s{}'/></w:style>", (n + 1) % 40_000);
        styled((0..40_000).map(style).collect(), 20_000)
    }),
    ("DOCX", "style-with-a-name-of-megabytes", || {
        styled(format!("<w:style w:styleId='s0'><w:name w:val='{}'/></w:style>", "heading ".repeat(1 << 17)), 20_000)
    }),
    ("DOCX", "styles-with-long-names-in-a-chain", || {
        let style = |n: usize| {
            let name = "Ä".repeat(30_000);
            format!("<w:style w:styleId='s{n}'><w:name w:val='{name}'/><w:basedOn w:val='s{}'/></w:style>", n + 1)
        };
        styled((0..20).map(style).collect(), 20_000)
    }),
    ("DOCX", "styles-of-millions", || {
        styled((0..800_000).map(|n| format!("<w:style w:styleId='s{n}'/>")).collect(), 10)
    }),
    ("DOCX", "relations-in-a-circle", || {
        let relations = "<r><Relationship Type='/officeDocument' Target='/_rels/.rels'/></r>";
        with("DOCX", &[("_rels/.rels", relations.to_owned())])
    }),
    ("DOCX", "relations-of-millions", || {
        let relations = "<Relationship Type='/x' Target='y'/>".repeat(1_000_000);
        with("DOCX", &[("word/_rels/document.xml.rels", format!("<r>{relations}</r>"))])
    }),
    ("DOCX", "document-is-its-own-notes", || {
        let relations = "<r><Relationship Type='/styles' Target='document.xml'/><Relationship Type='/footnotes' \
            Target='document.xml'/><Relationship Type='/endnotes' Target='document.xml'/></r>";
        with("DOCX", &[("word/_rels/document.xml.rels", relations.to_owned())])
    }),
    ("DOCX", "cells-that-span-billions", || {
        let cell = "<w:tc><w:tcPr><w:gridSpan w:val='4000000000'/><w:vMerge/></w:tcPr><w:p/></w:tc>";
        document(format!("<w:tbl><w:tr>{}</w:tr></w:tbl>", cell.repeat(30_000)))
    }),
    ("DOCX", "tables-in-cells", || document(format!("{}x", "<w:tbl><w:tr><w:tc><w:p>".repeat(100_000)))),
    ("DOCX", "bare-paragraphs", || document("<w:p/>".repeat(5_000_000))),
    ("DOCX", "tabs", || document(format!("<w:p>{}</w:p>", "<w:tab/>".repeat(3_000_000)))),
    ("DOCX", "symbols", || {
        document("<w:sym w:char='110000'/><w:sym w:char='D800'/><w:sym w:char='41'/>".repeat(50_000))
    }),
    ("DOCX", "outline-levels", || {
        document(
            "<w:p><w:pPr><w:outlineLvl w:val='18446744073709551615'/></w:pPr><w:r><w:t>x</w:t></w:r></w:p>"
                .repeat(30_000),
        )
    }),
    ("DOCX", "vanishing-inside-itself", || document("<w:r><w:rPr><w:vanish/></w:rPr>".repeat(100_000))),
    ("DOCX", "notes-of-millions", || {
        let note = "<w:footnote w:id='1'><w:p><w:r><w:t>x</w:t></w:r></w:p></w:footnote>";
        with("DOCX", &[("word/footnotes.xml", format!("<w:footnotes>{}</w:footnotes>", note.repeat(300_000)))])
    }),
    ("ODT", "spaces-of-billions", || content("<text:p><text:s text:c='4000000000'/>x</text:p>".repeat(1000))),
    ("ODT", "columns-of-billions", || {
        content(
            "<table:table><table:table-column table:number-columns-repeated='4000000000'/><table:table-row \
            table:number-rows-repeated='4000000000'><table:table-cell table:number-columns-repeated='4000000000'>\
            <text:p>x</text:p></table:table-cell></table:table-row></table:table>"
                .repeat(1000),
        )
    }),
    ("ODT", "outline-levels", || {
        content("<text:h text:outline-level='99999999999999999999'>x</text:h>".repeat(30_000))
    }),
    ("ODT", "notes-in-notes", || content("<text:note><text:note-body><text:p>x".repeat(60_000))),
    ("ODT", "lists-in-lists", || content("<text:list><text:list-item>".repeat(100_000))),
    ("ODT", "hidden-in-hidden", || content("<office:annotation>".repeat(150_000))),
    ("ODT", "bodies-in-bodies", || content("<office:body>x".repeat(150_000))),
    ("ODT", "bare-paragraphs", || content("<text:p/>".repeat(5_000_000))),
    ("ODT", "spaces", || content(format!("<text:p>{}</text:p>", "<text:s/>".repeat(3_000_000)))),
    ("FB2", "authors-of-millions", || {
        format!(
            "<FictionBook><description><title-info>{}</title-info></description><body><p>x</p></body></FictionBook>",
            "<author><first-name>x</first-name></author>".repeat(60_000)
        )
        .into_bytes()
    }),
    ("FB2", "bodies-of-millions", || {
        format!("<FictionBook>{}</FictionBook>", "<body name='n'><p>x</p></body>".repeat(100_000)).into_bytes()
    }),
    ("FB2", "titles-in-titles", || {
        format!("<FictionBook><body>{}", "<section><title><p>x".repeat(150_000)).into_bytes()
    }),
    ("FB2", "bold-paragraphs", || {
        let section = "<section><p><strong>x</strong></p><p><strong></strong></p></section>";
        format!("<FictionBook><body>{}</body></FictionBook>", section.repeat(50_000)).into_bytes()
    }),
    ("FB2", "empty-paragraphs-in-a-section", || {
        format!("<FictionBook><body><section>{}</section></body></FictionBook>", "<p></p>".repeat(450_000)).into_bytes()
    }),
    ("FB2", "poems-in-poems", || format!("<FictionBook><body>{}x", "<poem><stanza><v>".repeat(150_000)).into_bytes()),
    ("FB2", "binaries-unclosed", || {
        format!("<FictionBook><body><p>x</p></body>{}", "<binary id='a'>AAAA".repeat(150_000)).into_bytes()
    }),
];

pub fn recipes() -> Vec<Recipe> {
    ATTACKS.iter().map(|(format, name, make)| recipe(format!("structure-{name}"), format, make)).collect()
}
