"""A manager's addresses about what the record holds. Below projects/<slug>/."""

from django.urls import path

from feedback.pages import overview, snapshots

app_name = "feedback"

urlpatterns = [
    path("", overview.overview, name="overview"),
    path("requests/<int:pk>/again/", overview.try_again, name="try_again"),
    path("snapshots/", snapshots.make, name="make_snapshot"),
    path("snapshots/<int:pk>/download/", snapshots.download, name="download_snapshot"),
]
