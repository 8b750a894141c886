//! `#[mainstem_sdk::handler]`: use it through the crate `mainstem-sdk`.

use proc_macro::{TokenStream, TokenTree};

/// Makes a function the component's handler:
///
/// ```ignore
/// #[mainstem_sdk::handler]
/// fn shout(event: &Event, ctx: &mut Context) -> Result<()> { … }
/// ```
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if !arguments.is_empty() {
        return error("#[mainstem_sdk::handler] takes no arguments");
    }
    let mut tokens = item.clone().into_iter();
    let is_fn =
        |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word.to_string() == "fn");
    let Some(TokenTree::Ident(name)) = tokens.by_ref().find(is_fn).and_then(|_| tokens.next())
    else {
        return error(
            "#[mainstem_sdk::handler] belongs on a function: fn name(event: &Event, ctx: &mut Context) -> Result<()>",
        );
    };
    let export: TokenStream = match format!("::mainstem_sdk::export!(fn {name});").parse() {
        Ok(export) => export,
        Err(problem) => return error(&problem.to_string()),
    };
    item.into_iter().chain(export).collect()
}

fn error(message: &str) -> TokenStream {
    format!("::core::compile_error!({message:?});")
        .parse()
        .unwrap_or_default()
}
