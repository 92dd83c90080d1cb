"""Any table file -> question/answer pairs. Knows spreadsheets and nothing of tokens."""
