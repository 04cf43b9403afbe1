"""A manager's addresses about what the record holds. Below projects/<slug>/."""

from django.urls import path

from feedback.pages import overview

app_name = "feedback"

urlpatterns = [
    path("", overview.overview, name="overview"),
    path("requests/<int:pk>/again/", overview.try_again, name="try_again"),
    path("snapshots/", overview.make_snapshot, name="make_snapshot"),
]
