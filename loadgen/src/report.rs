//! The page that shows a run: one file, drawn by its own script from data in it, nothing loaded from anywhere.

use serde_json::Value;

const PAGE: &str = include_str!("report.html");
const MARK: &str = "/*DATA*/";

/// The page for what [`crate::output::json`] made of a run.
pub fn page(data: &Value) -> String {
    // Inside a script element only `</script` and `<!--` could end or bend the data; without `<` neither can occur.
    PAGE.replacen(MARK, &data.to_string().replace('<', "\\u003c"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_is_self_contained_and_its_data_comes_back() {
        let data = json!({"settings": {"title": "</script><!-- \" & ' \u{1f600}"}, "intervals": [1, 2]});
        let page = page(&data);
        for outside in ["http:", "https:", "src=", "href=", "@import", "url(", "fetch(", "XMLHttpRequest", "import "] {
            assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(outside), "{outside}");
        }
        let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").expect("the data is there");
        let (inside, _) = rest.split_once("</script>").expect("it ends");
        assert_eq!(serde_json::from_str::<Value>(inside).ok(), Some(data));
        assert!(!page.contains(MARK));
    }
}
