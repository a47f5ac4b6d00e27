"""The forms that people and programs write: the task file, the settings, the requests and answers of the JSON API."""
