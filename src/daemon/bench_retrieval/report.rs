//! What a run says: figures for a machine, tables for a person. Pure.

use std::fmt::Write;

use serde::Serialize;

use super::bootstrap::{Estimate, Resamples};
use super::labels::Counts;
use super::methods::Base;
use super::metrics::{MEASURES, NDCG, Scores, TEXT};

/// A book, and what its headings gave.
#[derive(Debug, Clone, Serialize)]
pub struct BookRow {
    pub book: String,
    pub language: String,
    /// Whether its text can be found, or its headings only ask.
    pub searched: bool,
    #[serde(flatten)]
    pub counts: Counts,
}

/// One method's passages in one language.
#[derive(Debug, Clone, Serialize)]
pub struct LanguageRow {
    pub language: String,
    pub passages: usize,
    pub tokens: usize,
    pub mean_tokens: f64,
    pub median_tokens: usize,
    pub border_cpu_seconds: f64,
    pub embed_cpu_seconds: f64,
    pub cut_contexts: usize,
}

/// One method on one group of questions.
#[derive(Debug, Clone, Serialize)]
pub struct ResultRow {
    pub group: String,
    pub form: &'static str,
    pub questions: usize,
    /// In the order of the report's `measures`.
    pub estimates: Vec<Estimate>,
    /// By nDCG@10 of those of its size.
    pub best: bool,
    /// What this method is compared with; None where it is the best, or what it is compared with was not run.
    pub compared_with: Option<String>,
    /// To that, question by question, in the order of the report's `measures`.
    pub differences: Vec<Estimate>,
}

/// One method.
#[derive(Debug, Clone, Serialize)]
pub struct MethodRow {
    pub name: String,
    pub languages: Vec<LanguageRow>,
    pub border_share: f64,
    pub results: Vec<ResultRow>,
}

impl MethodRow {
    fn sum(&self, of: impl Fn(&LanguageRow) -> f64) -> f64 {
        self.languages.iter().map(of).sum()
    }
}

/// Everything a run found.
#[derive(Debug, Clone, Serialize)]
pub struct RetrievalReport {
    pub model: String,
    pub fingerprint: String,
    pub device: String,
    pub max_tokens: usize,
    pub measures: [&'static str; MEASURES.len()],
    pub books: Vec<BookRow>,
    pub notes: Vec<String>,
    pub methods: Vec<MethodRow>,
    /// Tokens that went through the model, once each text.
    pub embedded_tokens: u64,
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
}

/// One group's questions: each method's measures, in the methods' order.
pub struct GroupScores {
    pub group: String,
    pub form: &'static str,
    pub scores: Vec<Vec<Scores>>,
}

/// Means, intervals and differences of one group, a row a method.
pub fn judge(group: &GroupScores, methods: &[(String, Base)]) -> Vec<ResultRow> {
    let resamples = Resamples::new(group.scores.first().map_or(0, Vec::len));
    let columns: Vec<Vec<Vec<f64>>> = group
        .scores
        .iter()
        .map(|scores| (0..MEASURES.len()).map(|measure| scores.iter().map(|of| of[measure]).collect()).collect())
        .collect();
    let total = |method: usize| columns[method][NDCG].iter().sum::<f64>();
    let named = |wanted: &str| methods.iter().position(|(name, _)| name == wanted);
    let best_of = |class: Base| {
        let of_class = (0..methods.len()).filter(|&method| methods[method].1 == class);
        of_class.reduce(|best, method| if total(method) > total(best) { method } else { best })
    };
    let rows = methods.iter().enumerate().map(|(method, (_, base))| {
        let base = match base {
            Base::BestOf(_) => best_of(*base),
            Base::Method(name) => named(name),
        };
        let best = base == Some(method);
        let base = base.filter(|_| !best);
        let own = &columns[method];
        let difference = |base: usize, measure: usize| resamples.difference(&own[measure], &columns[base][measure]);
        ResultRow {
            group: group.group.clone(),
            form: group.form,
            questions: group.scores[method].len(),
            estimates: own.iter().map(|column| resamples.estimate(column)).collect(),
            best,
            compared_with: base.map(|base| methods[base].0.clone()),
            differences: base
                .into_iter()
                .flat_map(|base| (0..MEASURES.len()).map(move |at| (base, at)))
                .map(|(base, at)| difference(base, at))
                .collect(),
        }
    });
    rows.collect()
}

/// Markdown.
pub fn tables(report: &RetrievalReport) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "### {} ({}, {} tokens; {})\n\n{} tokens embedded; {:.0} s, {:.0} CPU s\n",
        report.model,
        report.fingerprint,
        report.max_tokens,
        report.device,
        report.embedded_tokens,
        report.wall_seconds,
        report.cpu_seconds
    );
    books_table(report, &mut out);
    methods_table(report, &mut out);
    let mut groups: Vec<(&str, &str, usize)> = Vec::new();
    for result in report.methods.iter().flat_map(|method| &method.results) {
        let group = (result.group.as_str(), result.form, result.questions);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    for (group, form, questions) in groups {
        let _ = writeln!(out, "**{group}, {form}: {questions} questions**\n");
        result_table(report, group, form, &mut out);
    }
    for note in &report.notes {
        let _ = writeln!(out, "- {note}");
    }
    out
}

fn books_table(report: &RetrievalReport, out: &mut String) {
    out.push_str(
        "| book | language | sections | headings taken out | still there | too short | generic | ambiguous | questions |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in &report.books {
        let counts = &row.counts;
        let only_asks = if row.searched { "" } else { " (only asks)" };
        let _ = writeln!(
            out,
            "| {}{only_asks} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.book,
            row.language,
            counts.sections,
            counts.withheld,
            counts.kept,
            counts.short,
            counts.generic,
            counts.ambiguous,
            counts.queries
        );
    }
    out.push('\n');
}

fn methods_table(report: &RetrievalReport, out: &mut String) {
    out.push_str(
        "| method | passages | mean tokens | median | borders, CPU s | embedding, CPU s | borders/embedding |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for method in &report.methods {
        let passages = method.sum(|row| row.passages as f64);
        let medians: Vec<String> = method.languages.iter().map(|row| row.median_tokens.to_string()).collect();
        let _ = writeln!(
            out,
            "| {} | {passages} | {:.1} | {} | {:.2} | {:.1} | {:.1} % |",
            method.name,
            method.sum(|row| row.tokens as f64) / passages.max(1.0),
            medians.join(", "),
            method.sum(|row| row.border_cpu_seconds),
            method.sum(|row| row.embed_cpu_seconds),
            method.border_share * 100.0
        );
    }
    out.push('\n');
}

fn result_table(report: &RetrievalReport, group: &str, form: &str, out: &mut String) {
    let differences = [NDCG, TEXT].map(|measure| report.measures[measure]);
    let _ = writeln!(
        out,
        "| method | {} | compared with | in {} | in {} |",
        report.measures.join(" | "),
        differences[0],
        differences[1]
    );
    let _ = writeln!(out, "| --- |{} --- | --- | --- |", " --- |".repeat(report.measures.len()));
    for method in &report.methods {
        let Some(result) = method.results.iter().find(|result| result.group == group && result.form == form) else {
            continue;
        };
        let cells: Vec<String> =
            result.estimates.iter().map(|of| format!("{:.3} ± {:.3}", of.mean, (of.high - of.low) / 2.0)).collect();
        let differences =
            [NDCG, TEXT].map(|measure| result.differences.get(measure).map(difference).unwrap_or_default());
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            method.name,
            cells.join(" | "),
            result.compared_with.as_deref().unwrap_or(if result.best { "(the best)" } else { "" }),
            differences[0],
            differences[1]
        );
    }
    out.push('\n');
}

fn difference(of: &Estimate) -> String {
    let verdict = if of.high < 0.0 {
        ", **worse**"
    } else if of.low > 0.0 {
        ", **better**"
    } else {
        ""
    };
    format!("{:+.3} ({:+.3} to {:+.3}){verdict}", of.mean, of.low, of.high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::bench_retrieval::methods::{CONTRACT, DEFAULT};

    #[test]
    fn the_best_of_a_size_is_what_others_of_it_are_compared_with() {
        let scores = |ndcg: f64| (0..50).map(|n| [0.0, 0.0, 0.0, 0.0, ndcg + f64::from(n % 5) / 100.0, 0.0]).collect();
        let group = GroupScores {
            group: "en-en".into(),
            form: "path",
            scores: vec![scores(0.5), scores(0.6), scores(0.9), scores(0.59)],
        };
        let methods = [
            (DEFAULT, Base::BestOf(DEFAULT)),
            ("other", Base::BestOf(DEFAULT)),
            ("larger", Base::Method(DEFAULT)),
            ("smaller", Base::BestOf(CONTRACT)),
        ];
        let rows = judge(&group, &methods.map(|(name, base)| (name.to_owned(), base)));
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.compared_with.as_deref(), row.differences.get(NDCG).map(|of| (of.mean * 100.0).round())))
            .collect();
        let expected = [(Some("other"), Some(-10.0)), (None, None), (Some(DEFAULT), Some(40.0)), (None, None)];
        assert_eq!(shown, expected);
        assert_eq!(rows[0].questions, 50);
        assert!((rows[1].estimates[NDCG].mean - 0.62).abs() < 1e-9);
        assert!(difference(&rows[0].differences[NDCG]).ends_with("**worse**"));
        assert!(difference(&rows[2].differences[NDCG]).ends_with("**better**"));
        assert_eq!(rows.iter().map(|row| row.best).collect::<Vec<_>>(), [false, true, false, true]);
        assert_eq!(difference(&rows[2].differences[TEXT]), "+0.000 (+0.000 to +0.000)");
    }
}
