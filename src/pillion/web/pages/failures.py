"""Failures, grouped by cause: a few lines instead of ten thousand rows, and a button for each."""

from __future__ import annotations

from pillion.api.causes import Causes
from pillion.web.context import Page, View
from pillion.web.pages.base import answers, several

DAYS = (1, 7, 30, 180)
RECENT = 15
BUDGET, ALL = 2_000, 50_000  # failed jobs that are looked at: at once, and where somebody asks for more


async def failures(view: View) -> Page:
    """`/failures`"""
    days = view.number("days", 0, 0, DAYS[-1])
    budget = ALL if view.text("all", most=1) else BUDGET
    surveys = await answers(view, lambda client: Causes(client).asurvey(days=days or None, budget=budget))
    causes = sorted((cause for survey in surveys for cause in survey.causes), key=lambda cause: -cause.count)
    recent = (await several(view).aruns_page(most=RECENT, state="failed")).value
    figures = (await several(view).astats()).value
    return view.page(
        "failures.html",
        ("causes", "recent"),
        causes=causes,
        searched=sum(survey.searched for survey in surveys),
        total=sum(survey.total for survey in surveys),
        recent=[each.value for each in recent.entries],
        figures=figures,
        days=days,
        choices=[(0, view.t("failures.all_time")), *((each, view.words.many("count.days", each)) for each in DAYS)],
    )
