//! The report and the search's conditions, through the running service and the real alexandriactl.

use std::fs;

use alexandria_ingestd::control::arguments::ReportTable;
use alexandria_ingestd::control::protocol::{Coverage, CoverageRow, ReasonRow, Report, SlowBook, SpeedRow};
use alexandria_ingestd::control::tables::{self, View};

use crate::calibre::CalibreLibrary;
use crate::daemon::{Daemon, text};
use crate::qdrant_server::FakeQdrant;

const BEES: &str = "Bees live in a hive. The queen lays eggs all summer. Workers bring nectar and pollen home.";
const SHIPS: &str = "Ships cross the ocean under sail. A storm broke the mast. The crew rowed to the harbour.";

#[test]
fn the_report_tells_what_was_done_and_what_is_there() {
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    library.add(&library.epub("ships", "The Sea", "B", &SHIPS.repeat(50)));
    let broken = library.epub("broken", "Broken", "C", BEES);
    fs::write(&broken, &fs::read(&broken).unwrap()[..100]).unwrap();
    library.add(&broken);
    let comic = library.text("comic", "x").with_extension("cbz");
    fs::write(&comic, "x").unwrap();
    library.add(&comic);
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until_indexed(2);
    daemon.until("one is parked", |daemon| daemon.status()["queue"]["parked"] == 1);
    daemon.ctl(&["remove", "1"]);
    daemon.until_indexed(1);

    let report = daemon.json(&["report"]);
    let today = &report["days"][0];
    let queue = &daemon.status()["queue"];
    assert_eq!((today["model"].as_str(), today["books"].as_u64()), (Some("fake"), Some(2)), "{report}");
    assert_eq!(
        (today["failed"].as_u64(), today["removed"].as_u64(), today["loads"].as_u64()),
        (Some(1), Some(1), Some(1))
    );
    assert!(today["tokens"].as_u64() > queue["tokens"].as_u64(), "the removed book's are counted, too");
    assert!(today["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(report["models"].as_array().unwrap().len(), 1);
    let slowest = report["slowest"].as_array().unwrap();
    assert_eq!(slowest.len(), 2);
    assert!(slowest[0]["seconds"].as_f64() >= slowest[1]["seconds"].as_f64());
    assert!(slowest.iter().all(|book| book["format"] == "EPUB" && book["file_size"].as_u64() > Some(0)), "{report}");
    let all = &report["coverage"]["all"];
    let counts = ["books", "done", "parked", "excluded", "unreadable"].map(|name| all[name].as_u64().unwrap());
    assert_eq!(counts, [4, 1, 1, 1, 1], "{report}");
    let reasons = report["coverage"]["reasons"].to_string();
    assert!(reasons.contains("a comic") && reasons.contains("… is damaged"), "{reasons}");

    // A second start is a second load, and the day's sums go on.
    daemon.stop();
    daemon.start();
    let report = daemon.json(&["report", "--days", "1"]);
    assert_eq!(report["days"][0]["loads"].as_u64(), Some(2), "{report}");
    assert_eq!(report["days"][0]["books"].as_u64(), Some(2));

    let shown = text(&daemon.ctl(&["report"]).stdout);
    for heading in ["before and after", "Day by day", "longest", "in the store", "Why books are not"] {
        assert!(shown.contains(heading), "{heading}: {shown}");
    }
    let csv = text(&daemon.ctl(&["report", "--csv"]).stdout);
    assert!(csv.starts_with("first_day,last_day,model,device"), "{csv}");
    assert_eq!(csv.lines().count(), 2, "{csv}");
    let csv = text(&daemon.ctl(&["report", "--csv", "--table", "coverage"]).stdout);
    assert!(csv.contains("\nformat,EPUB,3,1,0,1,0,1,0\n"), "{csv}");
    let refused = daemon.ctl(&["report", "--csv", "--json"]);
    assert_eq!(refused.status.code(), Some(2), "one of the two");
}

/// The same conditions mean the same in both stores.
#[test]
fn a_search_is_narrowed_as_people_write() {
    let library = CalibreLibrary::new();
    let bees = library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    library.set_metadata(bees, "tags", "insects,Summer");
    library.set_metadata(bees, "series", "Nature");
    library.set_metadata(bees, "publisher", "Školska knjiga");
    let ships = library.add(&library.text("The Sea", SHIPS));
    library.set_metadata(ships, "authors", "Đuro Šimić & Ana Horvat");
    library.set_metadata(ships, "languages", "hrv");
    let mut server = FakeQdrant::new(None);
    for kind in ["embedded", "server"] {
        let mut daemon = Daemon::new(&library.path());
        daemon.set("store.kind", kind);
        daemon.set("store.url", &server.url());
        daemon.start();
        daemon.until_indexed(2);
        let titles = |arguments: &[&str]| {
            let answer = daemon.json(&[&["search", "queen storm mast eggs"], arguments].concat());
            let hits = answer["hits"].as_array().unwrap().iter();
            let mut titles: Vec<String> = hits.map(|hit| hit["title"].as_str().unwrap().to_owned()).collect();
            titles.sort();
            titles.dedup();
            (titles.join(", "), answer["notes"].to_string())
        };
        for (arguments, expected) in [
            (&[][..], "The Hive, The Sea"),
            (&["--author", "horvat"], "The Hive, The Sea"),
            (&["--author", "simic duro"], "The Sea"),
            (&["--author", "Ana Horvat", "--language", "en"], "The Hive"),
            (&["--language", "hr"], "The Sea"),
            (&["--title", "HIVE"], "The Hive"),
            (&["--series", "nature"], "The Hive"),
            (&["--tag", "summer"], "The Hive"),
            (&["--publisher", "skolska"], "The Hive"),
            (&["--format", "txt"], "The Sea"),
            (&["--book", &ships.to_string()], "The Sea"),
            (&["--level", "chapter"], "The Hive, The Sea"),
            (&["--tag", "summer", "--format", "txt"], ""),
            (&["--min-similarity", "0.9999"], ""),
        ] {
            assert_eq!(titles(arguments).0, expected, "{kind} {arguments:?}");
        }
        let (found, notes) = titles(&["--author", "Ana Horvatt"]);
        assert!(found.is_empty() && notes.contains("near it: 'Ana Horvat'"), "{notes}");
        let (_, notes) = titles(&["--language", "fr"]);
        assert!(notes.contains("'en', 'hr'"), "{notes}");
        let (_, notes) = titles(&["--min-similarity", "0.9999"]);
        assert!(notes.contains("the nearest passage has similarity"), "{notes}");
        let shown = text(&daemon.ctl(&["search", "queen lays eggs", "--author", "horvat", "--full"]).stdout);
        assert!(shown.starts_with("note: author 'horvat' is taken for"), "{shown}");
        assert!(
            shown.contains(&format!("calibre {bees}")) && shown.contains("chapter 1 of 1, passage 1 of 1"),
            "{shown}"
        );
        assert_eq!(daemon.stop().0, Some(0), "{}", daemon.log());
        let once = daemon.run(&["search", "queen lays eggs", "--author", "HORVAT", "--language", "en", "--json"]);
        let once: serde_json::Value = serde_json::from_slice(&once.stdout).unwrap();
        assert_eq!(once["hits"][0]["title"], "The Hive", "{kind}: {once}");
    }
    server.stop();
}

fn speed(day: &str, model: Option<&str>, books: u64, chunks: Option<u64>, seconds: f64) -> SpeedRow {
    SpeedRow {
        first_day: day.into(),
        last_day: day.into(),
        model: model.map(str::to_owned),
        device: if model.is_some() { "cuda f16 (NVIDIA H200)" } else { "cpu f32 (16 threads)" }.into(),
        version: model.map(|_| "0.2.0".to_owned()),
        books,
        chunks,
        tokens: chunks.map(|chunks| chunks * 450),
        seconds,
        loads: 1,
        ..SpeedRow::default()
    }
    .with_rates()
}

fn full_report() -> Report {
    let before = speed("2026-11-01", None, 12, None, 5400.0);
    let cpu = SpeedRow {
        device: "cpu f32 (16 threads)".into(),
        ..speed("2026-11-02", Some("bge-m3"), 30, Some(2400), 3600.0)
    };
    let now = speed("2026-11-03", Some("bge-m3"), 900, Some(72_000), 3000.0);
    let row = |name: &str, books, done, parked| CoverageRow {
        name: name.into(),
        books,
        done,
        parked,
        ..CoverageRow::default()
    };
    Report {
        models: vec![before.clone(), cpu.clone(), now.clone()],
        days: vec![before, cpu, now],
        slowest: vec![SlowBook {
            book_id: "calibre 12".into(),
            title: "Rat i mir".into(),
            author: "Lav Tolstoj".into(),
            format: Some("EPUB".into()),
            file_size: Some(3_400_000),
            chunks: Some(812),
            tokens: Some(365_400),
            seconds: 95.5,
            longest_stage: "embed".into(),
            longest_stage_seconds: 61.2,
            finished_us: 1_800_000_000_000_000 - 3_600_000_000,
            ..SlowBook::default()
        }],
        coverage: Coverage {
            all: CoverageRow { waiting: 40, unreadable: 8, ..row("all", 1000, 942, 10) },
            in_store: 944,
            without_file: 3,
            reasons: vec![
                ReasonRow {
                    standing: "parked".into(),
                    reason: "the EPUB is encrypted (DRM): … lists …".into(),
                    books: 10,
                    example: "Locked".into(),
                },
                ReasonRow {
                    standing: "unreadable".into(),
                    reason: "CBZ: a comic: its pages are images without text".into(),
                    books: 8,
                    example: "Asterix".into(),
                },
            ],
            formats: vec![row("EPUB", 900, 860, 10), row("PDF", 92, 82, 0)],
            languages: vec![row("en", 700, 660, 5), row("hr", 300, 282, 5)],
        },
    }
}

#[test]
fn a_report_reads_well() {
    let view = View { width: 100, now_us: 1_800_000_000_000_000 };
    insta::assert_snapshot!("report", tables::report(&full_report(), None, view));
    assert!(tables::report(&Report::default(), Some(ReportTable::Days), view).contains("nothing so far"));
    assert_eq!(tables::report(&Report::default(), None, view), "");
}

#[test]
fn each_table_is_csv_that_others_read() {
    let report = full_report();
    for (table, rows) in [
        (ReportTable::Models, 3),
        (ReportTable::Days, 3),
        (ReportTable::Slowest, 1),
        (ReportTable::Reasons, 2),
        (ReportTable::Coverage, 5),
    ] {
        let text = tables::report_csv(&report, table).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let width = reader.headers().unwrap().len();
        let records: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(records.len(), rows, "{text}");
        assert!(records.iter().all(|record| record.len() == width));
    }
    let days = tables::report_csv(&report, ReportTable::Days).unwrap();
    let unknown = days.lines().nth(1).unwrap();
    assert!(unknown.starts_with("2026-11-01,2026-11-01,,cpu f32 (16 threads),,12,,,,5400.0,,"), "{unknown}");
}
