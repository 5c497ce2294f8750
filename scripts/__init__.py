"""Small tools for people; not part of the installed package."""
