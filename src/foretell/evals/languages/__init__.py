"""Languages: multiple-choice questions in any of them, translated or by grammar, asked as the report asks them."""
