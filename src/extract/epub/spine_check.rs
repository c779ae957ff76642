//! The linear pages once more, by the crate `epub`'s reading of the package: what the report's independent count runs
//! on. Must never use the extraction's own reading of the spine, which it is there to check.

use std::collections::HashSet;

use super::super::container::{Container, folder};
use super::super::{ExtractError, Limits, Source};
use super::package::{self, Package};

/// Hands the markup of every linear page to `visit`, in reading order, each file once.
pub fn visit_spine(source: &Source, limits: &Limits, visit: &mut dyn FnMut(&[u8])) -> Result<(), ExtractError> {
    let mut container = Container::open(source, limits)?;
    let entry = super::package_entry(&mut container)?;
    let bytes = container.read(entry)?;
    let base = folder(&container.name(entry)).to_owned();
    let doc = package::epub_doc(&Package::parse(&bytes), &bytes).ok_or_else(|| {
        ExtractError::corrupt(source.path(), "the independent count cannot read the package document")
    })?;
    let mut groups = [Vec::new(), Vec::new(), Vec::new()];
    let mut seen = HashSet::new();
    for item in &doc.spine {
        let Some(resource) = doc.resources.get(&item.idref) else { continue };
        let Some(target) = container.resolve(&base, &resource.path.to_string_lossy()) else { continue };
        let is_page = ["html", "dtbook", "oeb1", "svg"].iter().any(|kind| resource.mime.contains(kind));
        if !is_page || !seen.insert(target.entry) {
            continue;
        }
        let is_nav = resource.properties.as_deref().is_some_and(|words| words.split(' ').any(|word| word == "nav"));
        groups[if is_nav { 2 } else { usize::from(!item.linear) }].push(target.entry);
    }
    // The first group that has pages: the linear ones, else the others, else the navigation page.
    for entry in groups.into_iter().find(|group| !group.is_empty()).unwrap_or_default() {
        visit(&container.read(entry)?);
    }
    Ok(())
}
