"""Results for people: tables, charts and sentences, on the console and as a page."""
