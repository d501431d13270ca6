"""The kinds of downstream task, by name."""

from __future__ import annotations

from headstart.tasks.question_answering import QuestionAnswering
from headstart.tasks.task import Task
from headstart.tasks.text_classification import Regression, TextClassification
from headstart.tasks.token_classification import Tagging

TASKS: dict[str, type[Task]] = {task.name: task for task in (TextClassification, Regression, Tagging, QuestionAnswering)}
