"""Files that leave the page: PDF, CSV, contact sheets, evaluation reports."""
