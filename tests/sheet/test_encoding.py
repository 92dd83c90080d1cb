"""Text is read right whatever it was stored as, and a guess is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sheets import cells, only_table

Write = Callable[..., Path]


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
    def test_of_german(self, text_file: Write, encoding: str) -> None:
        text = "Frage;Antwort\nWie heißt die größte Tür?;Überhaupt nicht „schön“ – für 5 €.\n"
        if encoding.startswith("utf-16-"):
            text = text.replace("„", '"').replace("“", '"').replace("–", "-").replace("€", "EUR")
        rows = cells(text_file(text, encoding=encoding))
        assert rows[1] == tuple(text.splitlines()[1].split(";"))

    @pytest.mark.parametrize(
        ("encoding", "text"),
        [
            ("cp1252", "Frage;Antwort\nWo?;Köln\n"),
            ("cp1252", "question;réponse\nOù êtes-vous né ?;À Besançon, près de la forêt.\n"),
            ("cp1250", "pytanie;odpowiedź\nGdzie mieszkasz?;W Łodzi, to piękne miasto, żółte ściany.\n"),
            ("cp1251", "вопрос;ответ\nКак дела?;Спасибо, всё хорошо. А у вас?\n"),
            ("cp1254", "soru;cevap\nNasılsın?;İyiyim, teşekkür ederim. Şimdi çalışıyorum.\n"),
            ("cp932", "質問,回答\n日本の首都はどこですか,東京です。\n元気ですか,はい、元気です。\n"),
            ("gb18030", "问题,答案\n中国的首都是哪里？,北京是中国的首都。\n"),
            ("big5", "問題,答案\n台灣的首都是哪裡？,台北是台灣的首都。\n"),
            ("cp949", "질문,답변\n한국의 수도는 어디입니까?,서울입니다.\n"),
        ],
    )
    def test_without_a_mark_are_recognized_and_the_guess_is_told(
        self, text_file: Write, encoding: str, text: str
    ) -> None:
        table = only_table(text_file(text, encoding=encoding))
        separator = ";" if ";" in text else ","
        assert [row.cells for row in table.rows] == [tuple(line.split(separator)) for line in text.splitlines()]
        assert [warning.code for warning in table.warnings] == ["guessed_encoding"]
