"""Views of the case page that ask more than its cells."""
