"""The annotators' addresses."""

from django.urls import path

from annotate.views import answers, chatting, consent, demonstrating, home, judging, ranking, rating, settings, work

app_name = "annotate"

urlpatterns = [
    path("", home.home, name="home"),
    path("guidelines/<slug:slug>/", home.guidelines, name="guidelines"),
    path("settings/", settings.settings, name="settings"),
    path("consent/<slug:slug>/", consent.consent, name="consent"),
    path("next/<slug:slug>/", work.next_work, name="next"),
    path("own/<slug:slug>/", work.own_dialogue, name="own"),
    path("work/<int:pk>/", work.work, name="work"),
    path("work/<int:pk>/rank/", ranking.submit, name="rank"),
    path("work/<int:pk>/draft/", work.draft, name="draft"),
    path("work/<int:pk>/skip/", work.skip, name="skip"),
    path("work/<int:pk>/arrivals/", chatting.arrivals, name="arrivals"),
    path("work/<int:pk>/send/", chatting.send, name="send"),
    path("work/<int:pk>/undo/", chatting.undo, name="undo"),
    path("work/<int:pk>/more/", chatting.more, name="more"),
    path("work/<int:pk>/end/", chatting.end, name="end"),
    path("work/<int:pk>/retry/", chatting.retry, name="retry"),
    path("work/<int:pk>/fewer/", chatting.fewer, name="fewer"),
    path("work/<int:pk>/verdict/", judging.verdict, name="verdict"),
    path("work/<int:pk>/judge/", judging.judge, name="judge"),
    path("work/<int:pk>/take-back/", judging.take_back, name="take_back"),
    path("work/<int:pk>/write/", demonstrating.write, name="write"),
    path("work/<int:pk>/start/", demonstrating.start, name="start"),
    path("work/<int:pk>/say/", demonstrating.say, name="say"),
    path("work/<int:pk>/withdraw/", demonstrating.withdraw, name="withdraw"),
    path("work/<int:pk>/review/", demonstrating.review, name="review"),
    path("work/<int:pk>/rate/", rating.rate, name="rate"),
    path("work/<int:pk>/unrate/", rating.take_back, name="unrate"),
    path("answers/", answers.answers, name="answers"),
    path("answers/<int:pk>/", answers.look_again, name="look_again"),
]
