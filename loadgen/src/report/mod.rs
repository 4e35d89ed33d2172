//! Pages that show a result: one file each, drawn by its own script from data in it, nothing loaded from anywhere.

use serde_json::Value;

const PAGE: &str = include_str!("page.html");
const COMMON: &str = include_str!("common.js");
const DATA_MARK: &str = "/*DATA*/";
const DRAW_MARK: &str = "/*DRAW*/";

/// The verb whose JSON a page shows.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    Run,
    Compare,
    Saturate,
}

impl Of {
    fn script(self) -> &'static str {
        match self {
            Of::Run => include_str!("run.js"),
            Of::Compare => include_str!("compare.js"),
            Of::Saturate => include_str!("saturate.js"),
        }
    }
}

/// The page for what a verb prints with `-o json`.
pub fn page(of: Of, data: &Value) -> String {
    // Inside a script element only `</script` and `<!--` could end or bend the data; without `<` neither can occur.
    let data = data.to_string().replace('<', "\\u003c");
    // Data last: it may hold any mark.
    PAGE.replacen(DRAW_MARK, &(COMMON.to_string() + of.script()), 1).replacen(DATA_MARK, &data, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pages_are_self_contained_and_their_data_comes_back() {
        let data =
            json!({"settings": {"title": "</script><!-- \" & ' \u{1f600} /*DRAW*/ /*DATA*/"}, "intervals": [1, 2]});
        for of in [Of::Run, Of::Compare, Of::Saturate] {
            let page = page(of, &data);
            for outside in
                ["http:", "https:", "src=", "href=", "@import", "url(", "fetch(", "XMLHttpRequest", "import "]
            {
                assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(outside), "{of:?}: {outside}");
            }
            let (_, rest) =
                page.split_once("<script type=\"application/json\" id=\"data\">").expect("the data is there");
            let (inside, rest) = rest.split_once("</script>").expect("it ends");
            assert_eq!(serde_json::from_str::<Value>(inside).ok(), Some(data.clone()));
            assert!(!rest.contains(DRAW_MARK) && rest.contains(of.script()), "{of:?}");
        }
    }
}
