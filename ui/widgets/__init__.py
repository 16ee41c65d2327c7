"""Parts of the page in JavaScript, and their Python side."""
